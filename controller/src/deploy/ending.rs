//! What moves a job and its targets forward, up to their ends.

use std::collections::{BTreeMap, BTreeSet};

use signet_common::time::Micros;

use super::ask::allowed;
use super::model::{self, End, Engine, Happening, Job, JobStatus, TargetStatus};
use super::outcomes::word;
use super::service::{Jobs, unknown};
use super::store::line;
use super::store::{self, Kept, NewLine};
use super::tasks::{Part, task};
use super::text::{self, fatal};
use crate::accounts::within;
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::hosts;
use crate::http::extract::Caller;
use crate::store::{StoreError, Tx, in_transaction};

impl Jobs {
    /// Refuses who is limited to groups of hosts and may not touch all of a job's.
    pub(super) async fn touchable(&self, tx: &mut Tx, caller: &Caller, id: i64) -> Result<()> {
        if caller.groups.is_none() {
            return Ok(());
        }
        let refused =
            || Error::Forbidden("this account may not do anything on some of the job's hosts".into());
        let mut hosts = Vec::new();
        for target in store::targets(&mut *tx, id).await? {
            let host = target.host.parse().ok().filter(|_| target.engine == Engine::Agent);
            hosts.push(host.ok_or_else(refused)?);
        }
        let wanted = hosts.len();
        let found = self.hosts().candidates(tx, &hosts::Target::Nodes(hosts)).await?;
        // Of a host that is no more nobody knows the group.
        if found.len() < wanted {
            return Err(refused());
        }
        within(caller.groups.as_ref(), found.iter().map(|host| &host.group))
    }

    /// Cancels a job; one that nobody took is over at once.
    pub(super) async fn cancel(&self, by: &Author, caller: &Caller, id: i64) -> Result<JobStatus> {
        let main = task(id, Part::Deploy)?;
        let status = in_transaction!(self.store(), |tx| -> Result<JobStatus> {
            // Rows of dispatches are locked before those of jobs, as everywhere.
            let held = self.dispatch().lock_held(tx, &main).await?;
            store::hold(tx).await?;
            store::lock(tx, id, &[]).await?;
            let job = store::one(&mut *tx, id).await?.ok_or_else(unknown)?;
            allowed(caller, &job.plan)?;
            self.touchable(tx, caller, id).await?;
            match job.status {
                JobStatus::Cancelled => return Ok(JobStatus::Cancelled),
                JobStatus::Success | JobStatus::Failed => {
                    return Err(Error::Conflict("the job is already over".into()));
                }
                JobStatus::Pending | JobStatus::Running => {}
            }
            let now = Micros::now();
            store::cancel(tx, id, now).await?;
            audit::note(tx, by, Note::of(Action::JobCancel, &model::shown(id))).await?;
            if let Some(held) = held {
                // From here on nobody can agree to it any more.
                self.dispatch().cancel_held(tx, held, now).await?;
            }
            // What waited for people is taken again, for its hosts' ends.
            if job.status == JobStatus::Running || job.awaits {
                return Ok(job.status);
            }
            let end = End::bad(TargetStatus::Cancelled, "the job was cancelled");
            self.settle(tx, &Job { cancel_at: Some(now), ..job }, &end, "the job was cancelled", now).await
        })?;
        self.dispatch().decided(&main);
        self.ring();
        Ok(status)
    }

    /// Adds lines to a log and moves targets; gives those that moved.
    pub(super) async fn record(
        &self,
        id: i64,
        lines: &[NewLine],
        happenings: &[(i64, Happening)],
    ) -> Result<BTreeSet<i64>> {
        in_transaction!(self.store(), |tx| -> Result<BTreeSet<i64>> {
            store::lock(tx, id, lines).await?;
            move_targets(tx, id, happenings).await
        })
    }

    /// Ends hosts with agents, each with its place and its name; after `head` says of those that it moves how they ended.
    pub(super) async fn end_agents(
        &self,
        id: i64,
        head: &[NewLine],
        ends: &[(i64, &str, End)],
    ) -> Result<()> {
        let happenings: Vec<_> =
            ends.iter().map(|(ordinal, _, end)| (*ordinal, Happening::Ended(end.clone()))).collect();
        in_transaction!(self.store(), |tx| -> Result<()> {
            store::lock(tx, id, &[]).await?;
            let moved = move_targets(tx, id, &happenings).await?;
            if moved.is_empty() {
                return Ok(());
            }
            let mut lines = head.to_vec();
            let told = ends.iter().filter(|(ordinal, ..)| moved.contains(ordinal));
            lines.extend(told.map(|(_, host, end)| line(Some(host), word(host, end))));
            Ok(store::lock(tx, id, &lines).await?)
        })
    }

    /// [`Jobs::record`] of lines that are kept as far as the log has room.
    pub(super) async fn record_fitting(
        &self,
        id: i64,
        lines: Vec<Kept>,
        happenings: &[(i64, Happening)],
    ) -> Result<BTreeSet<i64>> {
        in_transaction!(self.store(), |tx| -> Result<BTreeSet<i64>> {
            let lines = store::fitting(tx, id, lines.clone()).await?;
            store::lock(tx, id, &lines).await?;
            move_targets(tx, id, happenings).await
        })
    }

    /// Ends what is open of a job over SSH; says whether hosts with agents are open still.
    pub(super) async fn end_over_ssh(&self, id: i64, end: &End) -> Result<bool> {
        let (mut ends, mut open) = (Vec::new(), false);
        let mut lines = Vec::new();
        for target in self.targets(id).await?.into_iter().filter(|t| !t.standing.status.is_final()) {
            match target.engine {
                Engine::Agent => open = true,
                Engine::Ssh => {
                    ends.push((target.ordinal, Happening::Ended(end.clone())));
                    let line = fatal(&target.host, false, &end.reason);
                    lines.push(NewLine { at: Micros::now(), host: Some(target.host), line });
                }
            }
        }
        if open && !ends.is_empty() {
            self.record(id, &lines, &ends).await?;
        }
        Ok(open)
    }

    /// Ends a job: what has no end gets this one.
    pub(super) async fn finish(&self, id: i64, rest: &End, reason: &str) -> Result<JobStatus> {
        let now = Micros::now();
        in_transaction!(self.store(), |tx| -> Result<JobStatus> {
            store::lock(tx, id, &[]).await?;
            let job = store::one(&mut *tx, id).await?.ok_or_else(unknown)?;
            if job.status.is_final() {
                return Ok(job.status);
            }
            self.settle(tx, &job, rest, reason, now).await
        })
    }

    /// What came of reading a job: one that can't be read is ended, so that it is in no other's way.
    pub(super) async fn readable<T>(&self, id: i64, read: Result<Option<T>>) -> Result<Option<T>> {
        match read {
            Err(Error::Store(error)) if error.is_corrupt() => {
                tracing::error!(job = id, %error, "a job can't be read; it is ended");
                self.end_unread(id, &error).await.map(|()| None)
            }
            read => read,
        }
    }

    async fn end_unread(&self, id: i64, error: &StoreError) -> Result<()> {
        // Nobody could follow its hosts, or go on with it once people agreed.
        match self.dispatch().cancel(&Author::controller("jobs"), &task(id, Part::Deploy)?).await {
            Ok(_) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let why = text::reason(&format!("the job can't be read: {error}"));
        in_transaction!(self.store(), |tx| -> Result<()> {
            store::lock(tx, id, &[line(None, why.clone())]).await?;
            Ok(store::fail_unread(tx, id, &why, Micros::now()).await?)
        })
    }

    /// Ends a job whose row this transaction holds.
    async fn settle(
        &self,
        tx: &mut Tx,
        job: &Job,
        rest: &End,
        reason: &str,
        now: Micros,
    ) -> Result<JobStatus> {
        let (mut statuses, mut moved, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for mut target in store::targets(&mut *tx, job.id).await? {
            // An agent may still tell its own end.
            let end = End { inferred: target.engine == Engine::Agent, ..rest.clone() };
            let Some(next) = target.standing.apply(&Happening::Ended(end), now) else {
                statuses.push(target.standing.status);
                continue;
            };
            statuses.push(next.status);
            let line = match rest.status {
                TargetStatus::Cancelled => format!("cancelled: [{}]", target.host),
                _ => fatal(&target.host, false, &rest.reason),
            };
            lines.push(NewLine { at: now, host: Some(target.host.clone()), line });
            target.standing = next;
            moved.push(target);
        }
        store::put_targets(tx, job.id, &moved).await?;
        store::lock(tx, job.id, &lines).await?;
        let status = JobStatus::of(&statuses, job.cancel_at.is_some());
        // What went well as a whole needs no reason.
        let known = if reason.is_empty() { job.reason.as_str() } else { reason };
        let reason = if status == JobStatus::Success { "" } else { known };
        store::finish(tx, job.id, status, reason, now).await?;
        Ok(status)
    }
}

/// Moves targets of a job whose row this transaction holds; gives those that moved.
async fn move_targets(tx: &mut Tx, id: i64, happenings: &[(i64, Happening)]) -> Result<BTreeSet<i64>> {
    if happenings.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut by_place: BTreeMap<i64, Vec<&Happening>> = BTreeMap::new();
    happenings.iter().for_each(|(ordinal, what)| by_place.entry(*ordinal).or_default().push(what));
    let now = Micros::now();
    let mut moved = Vec::new();
    for mut target in store::targets(&mut *tx, id).await? {
        let mut changed = false;
        for happening in by_place.remove(&target.ordinal).into_iter().flatten() {
            if let Some(next) = target.standing.apply(happening, now) {
                target.standing = next;
                changed = true;
            }
        }
        if changed {
            moved.push(target);
        }
    }
    store::put_targets(tx, id, &moved).await?;
    Ok(moved.into_iter().map(|target| target.ordinal).collect())
}
