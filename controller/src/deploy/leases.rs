//! Which controller has a job: a lease by the database's clock.

use std::time::Duration;

use signet_common::time::Micros;
use tokio::time::Instant;

use super::lease_store;
use super::model::{Job, JobStatus};
use super::places::{Host, Places};
use super::service::Jobs;
use super::store;
use crate::error::Result;
use crate::limits::{JOB_LEASE_SECONDS, JOBS_AT_ONCE, JOBS_LOOKED_AT, JOBS_OF_AGENTS_AT_ONCE};
use crate::store::in_transaction;

/// How long a job belongs to a controller that is not heard of.
pub(super) const LEASE: Duration = Duration::from_secs(JOB_LEASE_SECONDS.unsigned_abs());
pub(super) const LEASE_MICROS: i64 = JOB_LEASE_SECONDS * 1_000_000;

/// What a job costs the controller that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// It has hosts over SSH: processes of its own.
    Heavy,
    /// Its agents are followed, and that is all.
    Light,
}

/// A job of this controller's.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) job: Job,
    pub(super) weight: Weight,
    /// The lease lasts for its length from here on at least.
    pub(super) since: Instant,
    /// Another controller began it.
    pub(super) resumed: bool,
}

/// How many more jobs this controller takes.
#[derive(Debug)]
pub(super) struct Room {
    heavy: usize,
    light: usize,
}

impl Room {
    /// What is left beside these.
    pub(super) fn beside(running: impl Iterator<Item = Weight>) -> Self {
        let mut room = Self { heavy: JOBS_AT_ONCE, light: JOBS_OF_AGENTS_AT_ONCE };
        for weight in running {
            let left = room.of(weight);
            *left = left.saturating_sub(1);
        }
        room
    }

    fn of(&mut self, weight: Weight) -> &mut usize {
        match weight {
            Weight::Heavy => &mut self.heavy,
            Weight::Light => &mut self.light,
        }
    }
}

impl Jobs {
    /// Takes what nobody has, oldest first, as far as there is room. What has to wait, for room or for a job under way at the
    /// same place, lets everything pass but what goes to that place too. Each job is given to `begin` as it is taken.
    pub(super) async fn take_some(&self, mut room: Room, mut begin: impl FnMut(Taken)) -> Result<()> {
        let mut busy = Places::default();
        let mut after = 0;
        while room.heavy > 0 || room.light > 0 {
            let page = lease_store::pending(self.store(), after, JOBS_LOOKED_AT).await?;
            let Some(last) = page.last() else { break };
            after = last.id;
            lease_store::add_busy(self.store(), &mut busy, &page).await?;
            for job in page {
                let weight = if job.over_ssh { Weight::Heavy } else { Weight::Light };
                if *room.of(weight) > 0
                    && !busy.meet(&job.dest_path, &job.hosts)
                    && let Some(taken) = self.readable(job.id, self.take(job.id, weight).await).await?
                {
                    *room.of(weight) -= 1;
                    begin(taken);
                }
                busy.add(&job.dest_path, &job.hosts);
            }
        }
        Ok(())
    }

    /// Takes one that nobody has and that no other stands in the way of.
    async fn take(&self, id: i64, weight: Weight) -> Result<Option<Taken>> {
        let since = Instant::now();
        in_transaction!(self.store(), |tx| -> Result<Option<Taken>> {
            store::hold(tx).await?;
            let job = store::one(&mut *tx, id).await?.filter(|job| job.status == JobStatus::Pending);
            let Some(job) = job else { return Ok(None) };
            let targets = store::targets(&mut *tx, id).await?;
            let hosts: Vec<Host> =
                targets.iter().map(|target| Host::new(&target.host, target.port)).collect();
            if lease_store::busy(tx, &hosts).await?.meet(&job.plan.dest_path, &hosts) {
                return Ok(None);
            }
            let now = Micros::now();
            let ours = lease_store::claim(tx, id, self.holder(), now, LEASE_MICROS).await?;
            let job = Job { status: JobStatus::Running, started_at: Some(now), ..job };
            Ok(ours.then_some(Taken { job, weight, since, resumed: false }))
        })
    }

    /// Takes a job whose controller was not heard of for the length of a lease, to end it or to go on with it; none that this
    /// one is at work on.
    pub(super) async fn take_lost(&self, at_work: impl Fn(i64) -> bool) -> Result<Vec<Taken>> {
        let mut ours = Vec::new();
        for id in lease_store::lost(self.store()).await?.into_iter().filter(|id| !at_work(*id)) {
            let since = Instant::now();
            let taken = in_transaction!(self.store(), |tx| -> Result<Option<Job>> {
                let taken = lease_store::take_lost(tx, id, self.holder(), LEASE_MICROS).await?;
                Ok(if taken { store::one(&mut *tx, id).await? } else { None })
            });
            let taken = self.readable(id, taken).await?;
            let one = |job| Taken { job, weight: Weight::Light, since, resumed: true };
            ours.extend(taken.map(one));
        }
        Ok(ours)
    }

    /// Keeps a job for the length of a lease; says whether it is this controller's still.
    pub(super) async fn renew(&self, id: i64) -> Result<bool> {
        in_transaction!(self.store(), |tx| -> Result<bool> {
            Ok(lease_store::renew(tx, id, self.holder(), LEASE_MICROS).await?)
        })
    }

    /// Whether the job is to be cancelled; `None` when it is not this controller's any more.
    pub(super) async fn look(&self, id: i64) -> Result<Option<bool>> {
        Ok(lease_store::watch(self.store(), id, self.holder()).await?)
    }

    /// Lets another controller, or this one's next start, go on with a job.
    pub(super) async fn let_go(&self, id: i64) -> Result<()> {
        in_transaction!(self.store(), |tx| -> Result<()> {
            Ok(lease_store::let_go(tx, id, self.holder()).await?)
        })
    }
}
