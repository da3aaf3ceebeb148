//! Jobs that wait for people: what they agree to is written when the commit is known, and until they decided nobody has the
//! job. What was agreed to is released by [`crate::approvals`]; the job is then taken again, to be followed to its end.

use async_trait::async_trait;
use signet_common::TaskId;
use signet_common::deploy::Deploy;
use signet_common::time::Micros;
use tokio::time::Instant;

use super::credentials::Sealing;
use super::leases::{LEASE_MICROS, Taken, Weight};
use super::model::{Job, JobStatus};
use super::service::{Jobs, unknown};
use super::store::NewLine;
use super::store::line;
use super::tasks::{Part, part, task};
use super::{lease_store, store};
use crate::approvals::{Asked, Holder, Need, Seal, State, Work};
use crate::dispatch::{self, Order, Sent};
use crate::error::{Error, Result};
use crate::hosts;
use crate::limits::JOBS_LOOKED_AT;
use crate::store::{Tx, in_transaction};

/// Asks people for a job's deployment. Says what the log is told when it waits: what no agent could do ends at once.
pub(super) async fn hold(
    jobs: &Jobs,
    tx: &mut Tx,
    job: &Job,
    need: Need,
    order: &Order<'_>,
    message: Deploy,
) -> Result<(Sent, Option<NewLine>)> {
    let message = Deploy { iat: order.now.seconds(), ..message };
    let asked = Asked { requester: &job.account, need, order, work: Work::Deploy(&message) };
    let (sent, awaits) = jobs.approvals().hold(tx, &asked).await?;
    let others = match need.approvals {
        1 => "one other person".to_owned(),
        some => format!("{some} others"),
    };
    let text = || format!("waits until {others} approved it: signet approve {}", order.task_id);
    Ok((sent, awaits.then(|| line(None, text()))))
}

impl Jobs {
    /// Takes the jobs on which people decided, or that are to be cancelled.
    pub(super) async fn take_decided(&self) -> Result<Vec<Taken>> {
        let (mut taken, mut after) = (Vec::new(), 0);
        loop {
            let some = lease_store::awaiting(self.store(), after, JOBS_LOOKED_AT).await?;
            let Some((last, _)) = some.last() else { return Ok(taken) };
            after = *last;
            let tasks = some.iter().map(|(id, _)| task(*id, Part::Deploy)).collect::<Result<Vec<_>>>()?;
            let held = dispatch::held_among(self.store(), &tasks).await?;
            for ((id, cancelled), task) in some.iter().zip(&tasks) {
                if *cancelled || !held.contains(task) {
                    let one = self.take_one_decided(*id).await;
                    taken.extend(self.readable(*id, one).await?);
                }
            }
        }
    }

    async fn take_one_decided(&self, id: i64) -> Result<Option<Taken>> {
        let approval = self.approvals().of(self.store(), &task(id, Part::Deploy)?).await?;
        let approved = approval.is_some_and(|approval| approval.state() == State::Approved);
        let since = Instant::now();
        in_transaction!(self.store(), |tx| -> Result<Option<Taken>> {
            store::hold(tx).await?;
            let job =
                store::one(&mut *tx, id).await?.filter(|job| job.awaits && job.status == JobStatus::Pending);
            let Some(job) = job else { return Ok(None) };
            let now = Micros::now();
            lease_store::decided(tx, id).await?;
            // Its messages may be on their way already: what stands in their way, the hosts find by their locks.
            if !lease_store::claim(tx, id, self.holder(), now, LEASE_MICROS).await? {
                return Ok(None);
            }
            let not =
                if job.cancel_at.is_some() { "cancelled before it was approved" } else { "not approved" };
            // Who approved it was said when its messages were let go, so that no host's word comes before that.
            let said = (!approved).then(|| line(None, not.into()));
            store::lock(tx, id, said.as_slice()).await?;
            let job = Job { status: JobStatus::Running, started_at: Some(now), awaits: false, ..job };
            Ok(Some(Taken { job, weight: Weight::Light, since, resumed: true }))
        })
    }
}

#[async_trait]
impl Holder for Jobs {
    async fn seal(&self, tx: &mut Tx, task: &TaskId) -> Result<Seal> {
        let id = part(task).map(|(id, _)| id).ok_or_else(unknown)?;
        let job = store::one(&mut *tx, id).await?.ok_or_else(unknown)?;
        let access = self.access(&job).await?.map_err(Error::Conflict)?;
        let credential = access.credential.ok_or_else(|| {
            Error::Conflict("the repository's credential is gone; have it requested again".into())
        })?;
        let hosts =
            store::targets(&mut *tx, id).await?.into_iter().filter_map(|t| t.host.parse().ok()).collect();
        let candidates = self.hosts().candidates(tx, &hosts::Target::Nodes(hosts)).await?;
        let sealing = Sealing::new(self, tx, &credential, &candidates, None).await?;
        Ok(Box::new(move |claims| sealing.sealed(claims)))
    }

    async fn released(&self, tx: &mut Tx, task: &TaskId, by: &[String]) -> Result<()> {
        let Some((id, Part::Deploy)) = part(task) else { return Ok(()) };
        Ok(store::lock(tx, id, &[line(None, format!("approved by {}", by.join(", ")))]).await?)
    }
}
