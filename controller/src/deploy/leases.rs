//! Which controller has a job: a lease by the database's clock.

use std::time::Duration;

use signet_common::time::Micros;

use super::model::{Job, JobStatus};
use super::service::Jobs;
use super::store;
use crate::error::Result;
use crate::limits::{JOB_LEASE_SECONDS, JOBS_LOOKED_AT};
use crate::store::in_transaction;

/// How long a job belongs to a controller that is not heard of.
pub(super) const LEASE: Duration = Duration::from_secs(JOB_LEASE_SECONDS.unsigned_abs());
const LEASE_MICROS: i64 = JOB_LEASE_SECONDS * 1_000_000;

impl Jobs {
    /// Takes the oldest job that nobody has and that no other job stands in the way of.
    pub(super) async fn take_next(&self) -> Result<Option<Job>> {
        for id in store::pending(self.store(), 0, JOBS_LOOKED_AT).await? {
            let taken = in_transaction!(self.store(), |tx| -> Result<Option<Job>> {
                store::hold(tx).await?;
                let job = store::one_in(tx, id).await?.filter(|job| job.status == JobStatus::Pending);
                let Some(job) = job else { return Ok(None) };
                let targets = store::targets_in(tx, id).await?;
                let hosts = targets.iter().map(|target| target.host.to_ascii_lowercase()).collect();
                if store::collides(tx, &job.plan.dest_path, hosts).await?.is_some() {
                    return Ok(None);
                }
                let now = Micros::now();
                let ours = store::claim(tx, id, self.holder(), now, LEASE_MICROS).await?;
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
        for id in store::lost(self.store(), JOBS_LOOKED_AT).await? {
            let taken = in_transaction!(self.store(), |tx| -> Result<bool> {
                Ok(store::take_lost(tx, id, self.holder(), LEASE_MICROS).await?)
            })?;
            ours.extend(taken.then_some(id));
        }
        Ok(ours)
    }

    /// Keeps a job for the length of a lease; says whether it is this controller's still.
    pub(super) async fn renew(&self, id: i64) -> Result<bool> {
        in_transaction!(self.store(), |tx| -> Result<bool> {
            Ok(store::renew(tx, id, self.holder(), LEASE_MICROS).await?)
        })
    }

    /// Whether the job is to be cancelled; `None` when it is not this controller's any more.
    pub(super) async fn look(&self, id: i64) -> Result<Option<bool>> {
        Ok(store::watch(self.store(), id, self.holder()).await?)
    }

    /// Lets another controller, or this one's next start, go on with a job.
    pub(super) async fn let_go(&self, id: i64) -> Result<()> {
        in_transaction!(self.store(), |tx| -> Result<()> { Ok(store::let_go(tx, id, self.holder()).await?) })
    }
}
