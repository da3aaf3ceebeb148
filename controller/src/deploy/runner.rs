//! Takes jobs and runs them, a few at a time, each under a lease by the database's clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signet_common::time::Micros;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::agents::Run;
use super::leases::{LEASE, Room, Taken, Weight};
use super::model::{End, Engine, Job, Target, TargetStatus};
use super::service::Jobs;
use super::stop::{LOST, Reason, Stop};
use super::tasks::Part;
use super::{agents, pace, rolling, secrets, ssh, store};
use crate::error::{Error, Result};
use crate::limits::{
    JOB_OF_AGENTS_WATCH_MILLISECONDS, JOB_RENEW_SECONDS, JOB_WATCH_MILLISECONDS, JOBS_LOOK_MILLISECONDS,
};

/// The runs of this controller.
#[derive(Debug, Default)]
struct Runs {
    tasks: JoinSet<()>,
    jobs: HashMap<tokio::task::Id, (i64, Heavy)>,
}

/// Whether a run has hosts over SSH that are not over yet.
type Heavy = Arc<AtomicBool>;

impl Runs {
    fn begin(&mut self, jobs: &Jobs, taken: Taken, stop: &CancellationToken) {
        let (id, heavy) = (taken.job.id, Heavy::new((taken.weight == Weight::Heavy).into()));
        let task = self.tasks.spawn(run(jobs.clone(), taken, heavy.clone(), stop.clone()));
        self.jobs.insert(task.id(), (id, heavy));
    }

    fn has(&self, job: i64) -> bool {
        self.jobs.values().any(|(id, _)| *id == job)
    }

    fn room(&self) -> Room {
        let weight =
            |heavy: &Heavy| if heavy.load(Ordering::Relaxed) { Weight::Heavy } else { Weight::Light };
        Room::beside(self.jobs.values().map(|(_, heavy)| weight(heavy)))
    }

    /// Waits for the end of one; says whether there was any.
    async fn ended(&mut self) -> bool {
        let Some(done) = self.tasks.join_next_with_id().await else { return false };
        let id = match &done {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let job = self.jobs.remove(&id).map(|(job, _)| job);
        if let Err(error) = done {
            tracing::error!(%error, job, "a job's run died");
        }
        true
    }
}

/// Works until `stop`, and then until what runs has been ended.
pub(super) async fn work(jobs: Jobs, stop: CancellationToken) {
    let data_dir = jobs.rules().data_dir.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || ssh::tidy(&data_dir)).await {
        tracing::error!(%error, "old directories of jobs were not looked at");
    }
    let mut runs = Runs::default();
    loop {
        if let Err(error) = round(&jobs, &mut runs, &stop).await {
            tracing::warn!(%error, "jobs could not be looked at; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = jobs.woken() => {}
            () = tokio::time::sleep(Duration::from_millis(JOBS_LOOK_MILLISECONDS)) => {}
            true = runs.ended() => {}
        }
    }
    while runs.ended().await {}
}

async fn round(jobs: &Jobs, runs: &mut Runs, stop: &CancellationToken) -> Result<()> {
    for taken in jobs.take_lost(|id| runs.has(id)).await? {
        let id = taken.job.id;
        tracing::warn!(job = id, "a job's controller is gone");
        let lost = End::bad(TargetStatus::Failed, LOST);
        let open = jobs.end_over_ssh(id, &lost).await.map(Some);
        match jobs.readable(id, open).await? {
            Some(true) => runs.begin(jobs, taken, stop),
            Some(false) => drop(jobs.finish(id, &lost, LOST).await?),
            None => {}
        }
    }
    if stop.is_cancelled() {
        return Ok(());
    }
    for taken in jobs.take_decided().await? {
        runs.begin(jobs, taken, stop);
    }
    jobs.take_some(runs.room(), |taken| runs.begin(jobs, taken, stop)).await
}

/// Runs one job to its end.
async fn run(jobs: Jobs, taken: Taken, heavy: Heavy, stopping: CancellationToken) {
    let job = &taken.job;
    tracing::info!(job = job.id, "a job begins");
    let stop = Stop::default();
    let done = tokio::select! {
        done = targets(&jobs, &taken, &heavy, &stop) => done,
        () = watch(&jobs, &taken, &stop, &stopping) => Ok(Run::Over),
    };
    if matches!(done, Ok(Run::Awaits)) {
        tracing::info!(job = job.id, "a job waits for approval");
        return;
    }
    let end = match (stop.reason(), &done) {
        // It is another's to end.
        (Some(Reason::Taken), _) => return,
        (Some(Reason::Stopping), _) if left_to_others(&jobs, job).await => return,
        // Hosts go on by themselves; when the lease runs out, the job is followed again.
        (_, Err(error)) if may_be_open(&jobs, job).await => {
            tracing::error!(%error, job = job.id, "a job is left as it is, because hosts may be at work on it");
            return;
        }
        (Some(reason), _) => reason.end(job),
        (None, Err(error)) => {
            tracing::error!(%error, job = job.id, "a job's run failed");
            End::bad(TargetStatus::Failed, "the controller could not run the job; its own log says why")
        }
        (None, Ok(_)) => End::bad(TargetStatus::Failed, "there is no word on this host"),
    };
    let reason =
        stop.reason().map(|reason| reason.why(job)).or_else(|| done.err().map(|_| end.reason.clone()));
    // The database may be away for a moment; when it stays away, the lease runs out.
    let finish = async || {
        let done = jobs.finish(job.id, &end, reason.as_deref().unwrap_or_default()).await;
        jobs.readable(job.id, done.map(Some)).await
    };
    while let Err(error) = finish().await {
        tracing::warn!(%error, job = job.id, "a job's end could not be stored; it is tried again");
        if stopping.is_cancelled() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(JOBS_LOOK_MILLISECONDS)).await;
    }
    tracing::info!(job = job.id, "a job ended");
}

async fn targets(jobs: &Jobs, taken: &Taken, heavy: &Heavy, stop: &Stop) -> Result<Run> {
    let job = &taken.job;
    let Some(targets) = pace::again(job.id, stop, || jobs.targets(job.id)).await? else {
        return Ok(Run::Over);
    };
    let ssh = async {
        let done = over_ssh(jobs, job, targets.clone(), taken.resumed, stop).await;
        // Agents may take hours: another job over SSH can begin.
        if targets.iter().any(|target| target.engine == Engine::Agent) {
            heavy.store(false, Ordering::Relaxed);
            jobs.ring();
        }
        done
    };
    let (ssh, agents) = tokio::join!(ssh, agents::run(jobs, job, &targets, stop));
    ssh?;
    agents
}

async fn over_ssh(jobs: &Jobs, job: &Job, targets: Vec<Target>, resumed: bool, stop: &Stop) -> Result<()> {
    // What another controller ran went with it.
    if !resumed && targets.iter().any(|target| target.engine == Engine::Ssh) {
        let secret = || async { Ok(store::secret(jobs.store(), job.id).await?) };
        let Some(secret) = pace::again(job.id, stop, secret).await? else { return Ok(()) };
        let (sealed, _) = secret.ok_or_else(|| Error::Internal("a job's log-ins are gone".into()))?;
        let logins = secrets::open(jobs.keys(), job.id, &sealed)?.logins;
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

/// Whether hosts with agents may be at work on a job.
async fn may_be_open(jobs: &Jobs, job: &Job) -> bool {
    // What can't be read now may be read later, unless it is no word at all.
    let unread = |error: Error| !matches!(error, Error::Store(error) if error.is_corrupt());
    agents::any_open(jobs, job.id, Part::Deploy).await.unwrap_or_else(unread)
}

/// How long a job may go on, whoever began it.
fn time_left(job: &Job) -> Duration {
    let until = job
        .started_at
        .unwrap_or_else(Micros::now)
        .plus_seconds(i64::try_from(rolling::limit(job)).unwrap_or(i64::MAX));
    Duration::from_micros(u64::try_from(until.0.saturating_sub(Micros::now().0)).unwrap_or_default())
}

/// Keeps the lease, and stops the run when it is time to. Never ends by itself.
async fn watch(jobs: &Jobs, taken: &Taken, stop: &Stop, stopping: &CancellationToken) {
    let job = &taken.job;
    let limit = tokio::time::sleep(time_left(job));
    tokio::pin!(limit);
    let every = match taken.weight {
        Weight::Heavy => JOB_WATCH_MILLISECONDS,
        Weight::Light => JOB_OF_AGENTS_WATCH_MILLISECONDS,
    };
    let mut look = tokio::time::interval(Duration::from_millis(every));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = taken.since;
    while stop.reason() < Some(Reason::Taken) {
        tokio::select! {
            () = &mut limit, if stop.reason().is_none() => stop.stop(Reason::TimedOut),
            () = stopping.cancelled(), if stop.reason() < Some(Reason::Stopping) => stop.stop(Reason::Stopping),
            now = look.tick() => {
                let renew = now.duration_since(renewed) >= Duration::from_secs(JOB_RENEW_SECONDS);
                let seen = async {
                    if renew { jobs.renew(job.id).await.map(|ours| ours.then_some(false)) } else { jobs.look(job.id).await }
                };
                let asked = Instant::now();
                match tokio::time::timeout_at(renewed + LEASE, seen).await {
                    Ok(Ok(Some(cancel))) => {
                        if renew {
                            renewed = asked;
                        }
                        if cancel {
                            stop.stop(Reason::Cancelled);
                        }
                    }
                    // Nobody could renew it: others that reach the database may take it.
                    Ok(Ok(None)) | Err(_) => stop.stop(Reason::Taken),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, job = job.id, "a job under way could not be looked at");
                    }
                }
            }
        }
    }
    std::future::pending().await
}
