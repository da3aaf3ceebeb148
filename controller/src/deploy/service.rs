//! What can be done with jobs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use signet_common::Hostname;
use signet_common::ids::StartId;
use signet_common::statement::Kind;
use signet_common::time::Micros;
use tokio::sync::Notify;

use super::model::{self, End, Engine, Happening, Job, JobStatus, Plan, Target, TargetStatus};
use super::request::{Asked, Checked, Rules as RequestRules};
use super::secrets::{self, Login};
use super::store::{self, Filter, NewJob, NewLine};
use super::text::fatal;
use crate::accounts::within;
use crate::approvals::Approvals;
use crate::audit::{self, Action, Author, Note};
use crate::dispatch::Dispatch;
use crate::error::{Error, Result};
use crate::hosts::{self, Candidate, Hosts};
use crate::http::extract::Caller;
use crate::keys::Keys;
use crate::limits::{
    JOB_LEASE_SECONDS, JOB_SECRETS_SECONDS, JOB_TARGETS_MAX, JOB_WAIT_LOOK_MILLISECONDS, JOBS_LOOKED_AT,
    RETENTION_JOBS_MAX,
};
use crate::loops::Loops;
use crate::settings::{Deploying, Settings};
use crate::store::{Store, Tx, in_transaction};

/// How long a job belongs to a controller that is not heard of.
pub(super) const LEASE: Duration = Duration::from_secs(JOB_LEASE_SECONDS.unsigned_abs());
const LEASE_MICROS: i64 = JOB_LEASE_SECONDS * 1_000_000;

/// What the operator decided.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) ansible_playbook: PathBuf,
    pub(super) protocols: BTreeSet<String>,
    host_keys: model::HostKeyPolicy,
    pub(super) data_dir: PathBuf,
}

impl Rules {
    /// As git itself takes them.
    pub(super) fn protocols_for_git(&self) -> String {
        self.protocols.iter().map(String::as_str).collect::<Vec<_>>().join(":")
    }
}

/// Jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    store: Store,
    keys: Keys,
    rules: Arc<Rules>,
    hosts: Hosts,
    dispatch: Dispatch,
    approvals: Approvals,
    wake: Arc<Notify>,
    /// This controller, as the holder of leases.
    holder: Arc<str>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}

impl Jobs {
    /// Jobs in this database.
    #[must_use]
    pub fn new(
        store: Store,
        keys: Keys,
        (hosts, dispatch, approvals): (Hosts, Dispatch, Approvals),
        settings: &Settings,
    ) -> Self {
        let Deploying { ansible_playbook, git_protocols, host_keys } = settings.deploying.clone();
        let data_dir = settings.data_dir.clone();
        let rules = Rules { ansible_playbook, protocols: git_protocols, host_keys, data_dir };
        let holder = StartId::generate().to_string().into();
        Self { store, keys, rules: Arc::new(rules), hosts, dispatch, approvals, wake: Arc::default(), holder }
    }

    /// Starts what takes jobs and runs them.
    pub fn run(&self, loops: &mut Loops) {
        loops.spawn("the jobs", super::runner::work(self.clone(), loops.stop()));
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    pub(super) fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn request_rules(&self) -> RequestRules<'_> {
        RequestRules { protocols: &self.rules.protocols, host_keys: self.rules.host_keys }
    }

    /// Waits until there may be something to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Makes a job; it begins by itself.
    pub(super) async fn ask(&self, by: &Author, caller: &Caller, request: Checked) -> Result<i64> {
        allowed(caller, &request.plan)?;
        let until = Micros::now().plus_seconds(JOB_SECRETS_SECONDS);
        let targets = self.expanded(request.targets).await?;
        self.make(by, caller, &request.plan, &targets, until, None).await
    }

    /// Every host by itself, as groups are now.
    async fn expanded(&self, asked: Vec<(usize, Asked)>) -> Result<Vec<Whom>> {
        let mut targets = Vec::new();
        let mut wrong = Vec::new();
        let mut known: BTreeSet<Hostname> = BTreeSet::new();
        for (index, asked) in asked {
            let (target, field, why) = match asked {
                Asked::Ssh(login) => {
                    targets.push(Whom::Ssh(login));
                    continue;
                }
                Asked::Host(host) => {
                    let why = format!("required: {host} is no enrolled host");
                    (hosts::Target::Node(host), "auth", why)
                }
                Asked::Group(group) => {
                    (hosts::Target::Group(group), "group", "names no enrolled host".into())
                }
            };
            let found = self.hosts.candidates(&mut self.store.begin().await?, &target).await?;
            let found: Vec<Hostname> = found.into_iter().map(|candidate| candidate.hostname).collect();
            if found.is_empty() {
                wrong.push((format!("targets[{index}].{field}"), why));
            }
            targets.extend(found.into_iter().filter(|host| known.insert(host.clone())).map(Whom::Agent));
        }
        if targets.len() > JOB_TARGETS_MAX {
            wrong.push(("targets".into(), format!("must name at most {JOB_TARGETS_MAX} hosts")));
        }
        if wrong.is_empty() { Ok(targets) } else { Err(Error::InvalidFields(wrong)) }
    }

    /// Whether a caller may deploy to these, and whether that needs no approval.
    async fn admitted(&self, tx: &mut Tx, caller: &Caller, targets: &[Whom]) -> Result<()> {
        let (mut candidates, mut held) = (Vec::new(), Vec::new());
        for target in targets {
            match target {
                Whom::Ssh(_) if caller.groups.is_some() => {
                    let text = "this account may only deploy to the hosts of its groups";
                    return Err(Error::Forbidden(text.into()));
                }
                // An enrolled host that is reached another way is the same host to a rule.
                Whom::Ssh(login) => {
                    if let Ok(host) = login.host.parse() {
                        held.extend(self.hosts.candidates(tx, &hosts::Target::Node(host)).await?);
                    }
                }
                Whom::Agent(host) => {
                    candidates.extend(self.hosts.candidates(tx, &hosts::Target::Node(host.clone())).await?);
                }
            }
        }
        within(caller.groups.as_ref(), candidates.iter().map(|candidate| &candidate.group))?;
        candidates.extend(held);
        self.unheld(tx, &candidates).await
    }

    /// Refuses what a rule holds for the approval of others: a job can't wait for that yet, and goes nowhere without. No job
    /// has the target `all`, so that a rule for that holds every job.
    pub(super) async fn unheld(&self, tx: &mut Tx, candidates: &[Candidate]) -> Result<()> {
        match self.approvals.needed(tx, Kind::Deploy, true, candidates).await? {
            None => Ok(()),
            Some(_) => Err(Error::Conflict("deployments to some of these hosts need approval".into())),
        }
    }

    async fn make(
        &self,
        by: &Author,
        caller: &Caller,
        plan: &Plan,
        targets: &[Whom],
        until: Micros,
        retry_of: Option<i64>,
    ) -> Result<i64> {
        let made = in_transaction!(self.store, |tx| -> Result<i64> {
            self.admitted(tx, caller, targets).await?;
            let id = store::next_id(tx).await?;
            let rows: Vec<_> = targets.iter().map(Whom::row).collect();
            let hosts: Vec<String> = rows.iter().map(|row| row.0.clone()).collect();
            let new = NewJob { account: &caller.name, plan, retry_of, now: Micros::now(), targets: rows };
            store::insert(tx, id, &new).await?;
            let logins: Vec<Login> = targets.iter().filter_map(Whom::login).cloned().collect();
            store::put_secret(tx, id, secrets::seal(&self.keys, id, &logins)?, until).await?;
            let action = if retry_of.is_some() { Action::JobRetry } else { Action::JobRun };
            let object = model::shown(id);
            let note = Note::of(action, &object).new(json!({
                "git_repo": plan.git_repo,
                "git_branch": plan.git_branch,
                "dest_path": plan.dest_path,
                "run_mode": plan.run_mode,
                "options": plan.options,
                "hosts": hosts,
                "retry_of": retry_of.map(model::shown),
            }));
            audit::note(tx, by, note).await?;
            Ok(id)
        })?;
        self.wake.notify_one();
        Ok(made)
    }

    /// The job, or 404.
    pub(super) async fn job(&self, id: i64) -> Result<Job> {
        store::one(&self.store, id).await?.ok_or_else(unknown)
    }

    pub(super) async fn targets(&self, id: i64) -> Result<Vec<Target>> {
        Ok(store::targets(&self.store, id).await?)
    }

    pub(super) async fn list(&self, filter: Filter, limit: usize, offset: usize) -> Result<(Vec<Job>, i64)> {
        Ok(store::list(&self.store, filter, limit, offset).await?)
    }

    /// Waits for the job's end, for so long at most.
    pub(super) async fn wait(&self, id: i64, limit: Duration) -> Result<JobStatus> {
        let until = tokio::time::Instant::now() + limit;
        loop {
            let status = self.job(id).await?.status;
            if status.is_final() || tokio::time::Instant::now() >= until {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(JOB_WAIT_LOOK_MILLISECONDS)).await;
        }
    }

    /// The same once more, as a new job.
    pub(super) async fn retry(&self, by: &Author, caller: &Caller, id: i64) -> Result<i64> {
        let job = self.job(id).await?;
        allowed(caller, &job.plan)?;
        if !job.status.is_final() {
            return Err(Error::Conflict("the job is still under way".into()));
        }
        let kept = store::secret(&self.store, id).await?.filter(|(_, until)| *until > Micros::now());
        let Some((sealed, until)) = kept else {
            let text = "what the job logs in with is no longer kept; make a new job";
            return Err(Error::Conflict(text.into()));
        };
        let mut logins = secrets::open(&self.keys, id, &sealed)?.into_iter();
        let mut targets = Vec::new();
        for target in self.targets(id).await? {
            targets.extend(match target.engine {
                Engine::Ssh => logins.next().map(Whom::Ssh),
                Engine::Agent => target.host.parse().ok().map(Whom::Agent),
            });
        }
        self.make(by, caller, &job.plan, &targets, until, Some(id)).await
    }

    /// Refuses who is limited to groups of hosts and may not touch all of a job's.
    async fn touchable(&self, tx: &mut Tx, caller: &Caller, id: i64) -> Result<()> {
        if caller.groups.is_none() {
            return Ok(());
        }
        let refused =
            || Error::Forbidden("this account may not do anything on some of the job's hosts".into());
        for target in store::targets_in(tx, id).await? {
            let host =
                target.host.parse().ok().filter(|_| target.engine == Engine::Agent).ok_or_else(refused)?;
            let found = self.hosts.candidates(tx, &hosts::Target::Node(host)).await?;
            // Of a host that is no more nobody knows the group.
            let host = found.first().ok_or_else(refused)?;
            within(caller.groups.as_ref(), [&host.group])?;
        }
        Ok(())
    }

    /// Cancels a job; one that nobody took is over at once.
    pub(super) async fn cancel(&self, by: &Author, caller: &Caller, id: i64) -> Result<JobStatus> {
        let status = in_transaction!(self.store, |tx| -> Result<JobStatus> {
            store::hold(tx).await?;
            store::lock(tx, id, &[]).await?;
            let job = store::one_in(tx, id).await?.ok_or_else(unknown)?;
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
            if job.status == JobStatus::Running {
                return Ok(JobStatus::Running);
            }
            let end = End::bad(TargetStatus::Cancelled, "the job was cancelled");
            self.settle(tx, &Job { cancel_at: Some(now), ..job }, &end, "the job was cancelled", now).await
        })?;
        self.wake.notify_one();
        Ok(status)
    }

    /// Adds lines to a log and moves targets; gives those that moved.
    pub(super) async fn record(
        &self,
        id: i64,
        lines: &[NewLine],
        happenings: &[(i64, Happening)],
    ) -> Result<BTreeSet<i64>> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<BTreeSet<i64>> {
            store::lock(tx, id, lines).await?;
            let mut moved = BTreeSet::new();
            if happenings.is_empty() {
                return Ok(moved);
            }
            for mut target in store::targets_in(tx, id).await? {
                let own = happenings.iter().filter(|(ordinal, _)| *ordinal == target.ordinal);
                let mut changed = false;
                for (_, happening) in own {
                    if let Some(next) = target.standing.apply(happening, now) {
                        target.standing = next;
                        changed = true;
                    }
                }
                if changed {
                    store::put_target(tx, id, target.ordinal, &target.standing).await?;
                    moved.insert(target.ordinal);
                }
            }
            Ok(moved)
        })
    }

    /// Takes the oldest job that nobody has and that no other job stands in the way of.
    pub(super) async fn take_next(&self) -> Result<Option<Job>> {
        for id in store::pending(&self.store, 0, JOBS_LOOKED_AT).await? {
            let taken = in_transaction!(self.store, |tx| -> Result<Option<Job>> {
                store::hold(tx).await?;
                let job = store::one_in(tx, id).await?.filter(|job| job.status == JobStatus::Pending);
                let Some(job) = job else { return Ok(None) };
                let targets = store::targets_in(tx, id).await?;
                let hosts = targets.iter().map(|target| target.host.to_ascii_lowercase()).collect();
                if store::collides(tx, &job.plan.dest_path, hosts).await?.is_some() {
                    return Ok(None);
                }
                let now = Micros::now();
                let ours = store::claim(tx, id, &self.holder, now, LEASE_MICROS).await?;
                Ok(ours.then_some(Job { status: JobStatus::Running, started_at: Some(now), ..job }))
            })?;
            if taken.is_some() {
                return Ok(taken);
            }
        }
        Ok(None)
    }

    /// Takes jobs whose controller was not heard of for the length of a lease, to end them.
    pub(super) async fn take_lost(&self) -> Result<Vec<i64>> {
        let mut ours = Vec::new();
        for id in store::lost(&self.store, JOBS_LOOKED_AT).await? {
            let taken = in_transaction!(self.store, |tx| -> Result<bool> {
                Ok(store::take_lost(tx, id, &self.holder, LEASE_MICROS).await?)
            })?;
            ours.extend(taken.then_some(id));
        }
        Ok(ours)
    }

    /// Keeps a job for the length of a lease; says whether it is this controller's still.
    pub(super) async fn renew(&self, id: i64) -> Result<bool> {
        in_transaction!(self.store, |tx| -> Result<bool> {
            Ok(store::renew(tx, id, &self.holder, LEASE_MICROS).await?)
        })
    }

    /// Whether the job is to be cancelled; `None` when it is not this controller's any more.
    pub(super) async fn look(&self, id: i64) -> Result<Option<bool>> {
        Ok(store::watch(&self.store, id, &self.holder).await?)
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

    /// Lets another controller, or this one's next start, go on with a job.
    pub(super) async fn let_go(&self, id: i64) -> Result<()> {
        in_transaction!(self.store, |tx| -> Result<()> { Ok(store::let_go(tx, id, &self.holder).await?) })
    }

    /// Notes the one commit that all hosts of a job get.
    pub(super) async fn put_commit(&self, id: i64, commit: &str) -> Result<()> {
        in_transaction!(self.store, |tx| -> Result<()> { Ok(store::put_commit(tx, id, commit).await?) })
    }

    /// Ends a job: what has no end gets this one.
    pub(super) async fn finish(&self, id: i64, rest: &End, reason: &str) -> Result<JobStatus> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<JobStatus> {
            store::lock(tx, id, &[]).await?;
            let job = store::one_in(tx, id).await?.ok_or_else(unknown)?;
            if job.status.is_final() {
                return Ok(job.status);
            }
            self.settle(tx, &job, rest, reason, now).await
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
        let mut statuses = Vec::new();
        let mut lines = Vec::new();
        for target in store::targets_in(tx, job.id).await? {
            let Some(next) = target.standing.apply(&Happening::Ended(rest.clone()), now) else {
                statuses.push(target.standing.status);
                continue;
            };
            statuses.push(next.status);
            store::put_target(tx, job.id, target.ordinal, &next).await?;
            let line = match rest.status {
                TargetStatus::Cancelled => format!("cancelled: [{}]", target.host),
                _ => fatal(&target.host, false, &rest.reason),
            };
            lines.push(NewLine { at: now, host: Some(target.host), line });
        }
        store::lock(tx, job.id, &lines).await?;
        let status = JobStatus::of(&statuses, job.cancel_at.is_some());
        // What went well as a whole needs no reason.
        let reason = if status == JobStatus::Success { "" } else { reason };
        store::finish(tx, job.id, status, reason, now).await?;
        Ok(status)
    }

    /// Keeps keys that hosts showed for the first time.
    pub(super) async fn pin(&self, job: &Job, keys: &[(&Login, String)]) -> Result<()> {
        let by = Author::controller("jobs");
        in_transaction!(self.store, |tx| -> Result<()> {
            for (login, key) in keys {
                let host = login.host.to_ascii_lowercase();
                store::pin(tx, &host, login.port, key, job.id, Micros::now()).await?;
                let object = format!("{host} port {}", login.port);
                let note = Note::of(Action::JobHostKeyPin, &object);
                audit::note(tx, &by, note.new(json!({ "key": key, "job_id": model::shown(job.id) }))).await?;
            }
            Ok(())
        })
    }

    /// Deletes a few jobs that were over before this; says whether there are more.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_old(&self, before: Micros) -> Result<bool> {
        let deleted = in_transaction!(self.store, |tx| -> Result<usize> {
            Ok(store::delete_old(tx, before, RETENTION_JOBS_MAX).await?)
        })?;
        Ok(deleted == RETENTION_JOBS_MAX)
    }

    /// Deletes what jobs logged in with, past its time.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_secrets(&self) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<()> { Ok(store::delete_old_secrets(tx, now).await?) })
    }
}

/// Whom a job is for, once it is known.
#[derive(Debug)]
enum Whom {
    /// A host over SSH.
    Ssh(Login),
    /// An enrolled host.
    Agent(Hostname),
}

impl Whom {
    /// As it is stored.
    fn row(&self) -> (String, Option<u16>, Option<String>, Engine) {
        match self {
            Self::Ssh(l) => (l.host.clone(), Some(l.port), Some(l.username.clone()), Engine::Ssh),
            Self::Agent(host) => (host.to_string(), None, None, Engine::Agent),
        }
    }

    fn login(&self) -> Option<&Login> {
        match self {
            Self::Ssh(login) => Some(login),
            Self::Agent(_) => None,
        }
    }
}

fn unknown() -> Error {
    Error::NotFound("Job not found".into())
}

/// Whether a caller may deploy this: a token may be limited to repositories, and who is limited to groups of enrolled
/// hosts has no business on others.
fn allowed(caller: &Caller, plan: &Plan) -> Result<()> {
    let plain = |url: &str| url.trim_end_matches('/').trim_end_matches(".git").to_owned();
    let named = |all: &BTreeSet<String>| all.iter().any(|one| plain(one) == plain(&plan.git_repo));
    if caller.repositories.as_ref().is_some_and(|all| !named(all)) {
        return Err(Error::Forbidden("this token may not deploy this repository".into()));
    }
    Ok(())
}
