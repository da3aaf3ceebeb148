//! The engine "agent": one commit is pinned first, then every host gets it in a signed message. What becomes of it is told
//! by the deliveries and by [`super::outcomes`], so that any controller can go on where another stopped.

mod follow;
pub(super) mod messages;

use std::time::Duration;

use signet_common::TaskId;
use signet_common::deploy::CommitId;
use signet_common::fault::{self, JobPoint};
use tokio::time::Instant;

use self::follow::{close, follow};
use self::messages::{ENDED, Sending, send};
use super::model::{End, Engine, Job, Target, TargetStatus};
use super::pace::{Pace, again};
use super::service::Jobs;
use super::stop::{Reason, Stop};
use super::store::line;
use super::tasks::{Part, task};
use super::text::heading;
use super::{remote, rollback};
use crate::audit::Author;
use crate::dispatch;
use crate::error::Result;
use crate::limits::QUESTION_END_SECONDS;

/// Whether any host may be at work on these messages of a job.
pub(super) async fn any_open(jobs: &Jobs, job: i64, part: Part) -> Result<bool> {
    let all = dispatch::tallies(jobs.store(), &[task(job, part)?]).await?;
    Ok(all.values().flatten().any(|(state, _)| !state.is_final()))
}

/// What became of a job's hosts with agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Each has its end, or another controller goes on.
    Over,
    /// The job waits for people, and is nobody's until they decide.
    Awaits,
}

/// What was made of a job's hosts with agents, up to the messages of its deployment.
enum Begun {
    /// They are written, by this controller or by one before it.
    Sent,
    /// People are asked first.
    Awaits,
    /// Nothing is to be done, or another goes on.
    Over,
    /// Nothing was sent, and nothing will be.
    Fails(String),
}

/// Brings a job's hosts with agents to their ends, or goes on with that. Returns early when the controller stops.
pub(super) async fn run(jobs: &Jobs, job: &Job, targets: &[Target], stop: &Stop) -> Result<Run> {
    let ours: Vec<&Target> = targets.iter().filter(|t| t.engine == Engine::Agent).collect();
    if ours.is_empty() {
        return Ok(Run::Over);
    }
    let main = &task(job.id, Part::Deploy)?;
    match again(job.id, stop, || begin(jobs, job.id, &ours, main, stop)).await? {
        None | Some(Begun::Over) => Ok(Run::Over),
        Some(Begun::Awaits) => Ok(Run::Awaits),
        Some(Begun::Sent) => follow(jobs, job, main, &ours, stop).await.map(|()| Run::Over),
        Some(Begun::Fails(why)) => {
            again(job.id, stop, || all_fail(jobs, job, &ours, &why)).await?;
            Ok(Run::Over)
        }
    }
}

/// Sends the deployment, unless that was done.
async fn begin(jobs: &Jobs, id: i64, ours: &[&Target], main: &TaskId, stop: &Stop) -> Result<Begun> {
    // What was tried before may have changed it.
    let job = &jobs.job(id).await?;
    if job.awaits {
        return Ok(Begun::Awaits);
    }
    // Whatever came up meanwhile: what was sent is followed.
    if !dispatch::targets(jobs.store(), main, 0, 1).await?.is_empty() {
        return Ok(Begun::Sent);
    }
    let ready = match stop.reason() {
        None => ready(jobs, job, ours, stop).await?,
        Some(_) => Err(ENDED.into()),
    };
    let sent = match ready {
        Ok(commit) if stop.reason().is_none() => {
            send(jobs, job, ours, Part::Deploy, Some(&commit), stop).await?
        }
        Ok(_) => Err(ENDED.into()),
        Err(why) => Err(why),
    };
    if sent.is_err() && matches!(stop.reason(), Some(Reason::Cancelled | Reason::TimedOut)) {
        end_questions(jobs, id, stop).await?;
    }
    Ok(match (sent, stop.reason()) {
        (Ok(Sending::Sent), _) => Begun::Sent,
        (Ok(Sending::Awaits), _) => Begun::Awaits,
        (Err(why), None | Some(Reason::TimedOut)) => Begun::Fails(why),
        (Err(_), Some(_)) => Begun::Over,
    })
}

/// Cancels what hosts were asked before the deployment, and waits a while for their word: until then they hold the locks of
/// their paths.
async fn end_questions(jobs: &Jobs, job: i64, stop: &Stop) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(QUESTION_END_SECONDS);
    let pace = Pace::begin();
    for part in [Part::Resolve, Part::Preflight] {
        if !any_open(jobs, job, part).await? {
            continue;
        }
        jobs.dispatch().cancel(&Author::controller("jobs"), &task(job, part)?).await?;
        while any_open(jobs, job, part).await? && Instant::now() < until && !stop.is_anothers() {
            pace.next().await;
        }
    }
    Ok(())
}

/// The one commit of the job once it may be deployed, or why it may not: to go back to it, all hosts must have it.
async fn ready(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    stop: &Stop,
) -> Result<std::result::Result<CommitId, String>> {
    let commit = pinned(jobs, job, ours, stop).await?;
    let Ok(commit) = commit else { return Ok(commit) };
    if job.plan.options.rollback.is_none() {
        return Ok(Ok(commit));
    }
    if let Some(why) = rollback::preflight(jobs, job, ours, &commit, stop).await? {
        return Ok(Err(why));
    }
    fault::hit(JobPoint::Asked);
    Ok(Ok(commit))
}

async fn all_fail(jobs: &Jobs, job: &Job, ours: &[&Target], why: &str) -> Result<()> {
    let end = End::bad(TargetStatus::Failed, why);
    let ends: Vec<_> = ours.iter().map(|t| (t.ordinal, t.host.as_str(), end.clone())).collect();
    let head = [line(None, heading("PLAY [all]")), line(None, heading("TASK [git]"))];
    jobs.end_agents(job.id, &head, &ends).await?;
    close(jobs, job).await
}

/// The one commit of the job, or why there is none.
async fn pinned(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    stop: &Stop,
) -> Result<std::result::Result<CommitId, String>> {
    let wanted = job.commit.as_deref().or(job.plan.version());
    let known: Option<CommitId> = wanted.and_then(|text| text.parse().ok());
    if let Some(commit) = known {
        return jobs.put_commit(job.id, &commit).await.map(Ok);
    }
    let access = match jobs.access(job).await? {
        Ok(access) => access,
        Err(why) => return Ok(Err(why)),
    };
    let said = match remote::commit(jobs, job, access.credential.as_ref()).await {
        // What a host found for a controller before this one counts.
        Ok(commit) => return jobs.put_commit(job.id, &commit).await.map(Ok),
        Err(said) => said,
    };
    // A host may be able to read what the controller can't.
    let resolving = task(job.id, Part::Resolve)?;
    if dispatch::targets(jobs.store(), &resolving, 0, 1).await?.is_empty()
        && let Err(why) = send(jobs, job, ours, Part::Resolve, None, stop).await?
    {
        return Ok(Err(why));
    }
    let pace = Pace::begin();
    loop {
        let asked = dispatch::targets(jobs.store(), &resolving, 0, 1).await?;
        let ended = asked.first().filter(|t| t.delivery.state.is_final());
        if let Some(ended) = ended {
            let found = jobs.job(job.id).await?.commit.and_then(|text| text.parse().ok());
            let host = &ended.hostname;
            let why = || {
                let told = if ended.delivery.reason.is_empty() {
                    said.clone()
                } else {
                    ended.delivery.reason.clone()
                };
                format!("neither the controller nor {host} could find the commit: {told}")
            };
            return Ok(found.ok_or_else(why));
        }
        if stop.reason().is_some() {
            return Ok(Err("the job was ended before its commit was known".into()));
        }
        pace.next().await;
    }
}
