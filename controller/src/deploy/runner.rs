//! Takes jobs and runs them, a few at a time, each under a lease by the database's clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::model::{End, Engine, Job, Target, TargetStatus};
use super::service::Jobs;
use super::{agents, secrets, ssh, store};
use crate::error::{Error, Result};
use crate::limits::{JOB_RENEW_LOOKS, JOB_WATCH_MILLISECONDS, JOBS_AT_ONCE, JOBS_LOOK_MILLISECONDS};

/// Why a run is to end before its time; a later one here outweighs the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It took too long.
    TimedOut,
    /// Somebody asked for that.
    Cancelled,
    /// This controller stops.
    Stopping,
    /// Another controller took it for dead.
    Taken,
}

impl Reason {
    /// In words for people.
    pub(super) fn why(self, job: &Job) -> String {
        match self {
            Self::Cancelled => "the job was cancelled".into(),
            Self::TimedOut => format!("the job was not done within {} s", job.plan.options.timeout),
            Self::Stopping => "the controller was stopped while the job ran".into(),
            Self::Taken => LOST.into(),
        }
    }

    fn end(self, job: &Job) -> End {
        let status = if self == Self::Cancelled { TargetStatus::Cancelled } else { TargetStatus::Failed };
        End::bad(status, self.why(job))
    }
}

/// What is said of a job whose controller is gone.
const LOST: &str = "the controller that ran the job is gone; it may have been deployed";

/// Ends a run before its time. The weightiest reason counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    token: CancellationToken,
    reason: Arc<Mutex<Option<Reason>>>,
}

impl Stop {
    fn stop(&self, reason: Reason) {
        let mut known = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(Some(reason));
        self.token.cancel();
    }

    /// Why, once it is so.
    pub(super) fn reason(&self) -> Option<Reason> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is so.
    pub(super) async fn stopped(&self) {
        self.token.cancelled().await;
    }
}

/// Works until `stop`, and then until what runs has been ended.
pub(super) async fn work(jobs: Jobs, stop: CancellationToken) {
    let data_dir = jobs.rules().data_dir.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || ssh::tidy(&data_dir)).await {
        tracing::error!(%error, "old directories of jobs were not looked at");
    }
    let mut running = JoinSet::new();
    loop {
        if let Err(error) = round(&jobs, &mut running, &stop).await {
            tracing::warn!(%error, "jobs could not be looked at; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = jobs.woken() => {}
            () = tokio::time::sleep(Duration::from_millis(JOBS_LOOK_MILLISECONDS)) => {}
            Some(done) = running.join_next() => report(done),
        }
    }
    while let Some(done) = running.join_next().await {
        report(done);
    }
}

fn report(done: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "a job's run died");
    }
}

async fn round(jobs: &Jobs, running: &mut JoinSet<()>, stop: &CancellationToken) -> Result<()> {
    for id in jobs.take_lost().await? {
        tracing::warn!(job = id, "a job's controller is gone");
        let lost = End::bad(TargetStatus::Failed, LOST);
        let job = jobs.job(id).await?;
        if jobs.end_over_ssh(id, &lost).await? {
            running.spawn(run(jobs.clone(), job, true, stop.clone()));
        } else {
            jobs.finish(id, &lost, LOST).await?;
        }
    }
    while running.len() < JOBS_AT_ONCE && !stop.is_cancelled() {
        let Some(job) = jobs.take_next().await? else { break };
        running.spawn(run(jobs.clone(), job, false, stop.clone()));
    }
    Ok(())
}

/// Runs one job to its end.
async fn run(jobs: Jobs, job: Job, resumed: bool, stopping: CancellationToken) {
    tracing::info!(job = job.id, "a job begins");
    let stop = Stop::default();
    let done = tokio::select! {
        done = targets(&jobs, &job, resumed, &stop) => done,
        () = watch(&jobs, &job, &stop, &stopping) => Ok(()),
    };
    let end = match (stop.reason(), &done) {
        // It is another's to end.
        (Some(Reason::Taken), _) => return,
        (Some(Reason::Stopping), _) if left_to_others(&jobs, &job).await => return,
        (Some(reason), _) => reason.end(&job),
        (None, Err(error)) => {
            tracing::error!(%error, job = job.id, "a job's run failed");
            End::bad(TargetStatus::Failed, "the controller could not run the job; its own log says why")
        }
        (None, Ok(())) => End::bad(TargetStatus::Failed, "there is no word on this host"),
    };
    let reason =
        stop.reason().map(|reason| reason.why(&job)).or_else(|| done.err().map(|_| end.reason.clone()));
    // The database may be away for a moment; when it stays away, the lease runs out.
    while let Err(error) = jobs.finish(job.id, &end, reason.as_deref().unwrap_or_default()).await {
        tracing::warn!(%error, job = job.id, "a job's end could not be stored; it is tried again");
        if stopping.is_cancelled() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(JOBS_LOOK_MILLISECONDS)).await;
    }
    tracing::info!(job = job.id, "a job ended");
}

async fn targets(jobs: &Jobs, job: &Job, resumed: bool, stop: &Stop) -> Result<()> {
    let targets = store::targets(jobs.store(), job.id).await?;
    let (ssh, agents) = tokio::join!(
        over_ssh(jobs, job, targets.clone(), resumed, stop),
        agents::run(jobs, job, &targets, stop)
    );
    ssh.and(agents)
}

async fn over_ssh(jobs: &Jobs, job: &Job, targets: Vec<Target>, resumed: bool, stop: &Stop) -> Result<()> {
    // What another controller ran went with it.
    if !resumed && targets.iter().any(|target| target.engine == Engine::Ssh) {
        let (sealed, _) = store::secret(jobs.store(), job.id)
            .await?
            .ok_or_else(|| Error::Internal("a job's log-ins are gone".into()))?;
        let logins = secrets::open(jobs.keys(), job.id, &sealed)?;
        ssh::run(jobs, job, targets, logins, stop).await?;
    }
    Ok(())
}

/// Whether hosts with agents go on by themselves, for the next controller to follow.
async fn left_to_others(jobs: &Jobs, job: &Job) -> bool {
    let end = Reason::Stopping.end(job);
    let left =
        async { Ok::<_, Error>(jobs.end_over_ssh(job.id, &end).await? && jobs.let_go(job.id).await.is_ok()) };
    left.await.unwrap_or_else(|error| {
        tracing::warn!(%error, job = job.id, "a job is left as it is; its lease runs out");
        true
    })
}

/// Keeps the lease, and stops the run when it is time to. Never ends by itself.
async fn watch(jobs: &Jobs, job: &Job, stop: &Stop, stopping: &CancellationToken) {
    let limit = tokio::time::sleep(Duration::from_secs(u64::from(job.plan.options.timeout)));
    tokio::pin!(limit);
    let mut looks = 0_u32;
    let mut look = tokio::time::interval(Duration::from_millis(JOB_WATCH_MILLISECONDS));
    let mut since = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = &mut limit, if stop.reason().is_none() => stop.stop(Reason::TimedOut),
            () = stopping.cancelled(), if stop.reason() < Some(Reason::Stopping) => stop.stop(Reason::Stopping),
            _ = look.tick() => {
                looks = looks.wrapping_add(1);
                let seen = if looks.is_multiple_of(JOB_RENEW_LOOKS) {
                    jobs.renew(job.id).await.map(|ours| ours.then_some(false))
                } else {
                    jobs.look(job.id).await
                };
                match seen {
                    Ok(Some(cancel)) => {
                        since = tokio::time::Instant::now();
                        if cancel {
                            stop.stop(Reason::Cancelled);
                        }
                    }
                    Ok(None) => stop.stop(Reason::Taken),
                    // Nobody can renew it; others that reach the database may take it.
                    Err(_) if since.elapsed() > super::leases::LEASE => stop.stop(Reason::Taken),
                    Err(error) => tracing::warn!(%error, job = job.id, "a job under way could not be looked at"),
                }
            }
        }
    }
}
