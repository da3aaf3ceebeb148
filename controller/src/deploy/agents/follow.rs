//! From the deliveries of a deployment to the ends of its hosts.

use std::collections::{BTreeSet, HashMap};

use signet_common::TaskId;

use super::super::model::{End, Engine, Happening, Job, Target, TargetStatus};
use super::super::pace::Pace;
use super::super::service::Jobs;
use super::super::stop::{Reason, Stop};
use super::super::store::{self, line};
use super::super::text::{heading, reason, recap};
use crate::audit::Author;
use crate::dispatch::model::{Delivery, State};
use crate::dispatch::{self, Brake};
use crate::error::{Error, Result};
use crate::limits::TARGETS_SHOWN_MAX;

/// How a delivery ended that brought no result of its own; `late` is why, when the job's time is over.
fn ended(target: &dispatch::Target, late: Option<&str>) -> End {
    let delivery = &target.delivery;
    let status = match delivery.state {
        State::Succeeded => TargetStatus::Success,
        // The canary failed or the failure budget is used up, and this one was not released.
        State::Cancelled if Brake::held_back(&delivery.reason) => TargetStatus::Skipped,
        State::Cancelled if late.is_some() => TargetStatus::Failed,
        State::Cancelled => TargetStatus::Cancelled,
        // Nobody tried to reach it.
        State::Expired if delivery.reason.starts_with("not approved") => TargetStatus::Failed,
        State::Expired | State::Lost => TargetStatus::Unreachable,
        _ => TargetStatus::Failed,
    };
    let why = match (late, delivery.reason.as_str()) {
        (Some(late), _) if delivery.state == State::Cancelled && status == TargetStatus::Failed => late,
        (_, "") => delivery.state.as_str(),
        (_, why) => why,
    };
    End {
        reason: if status == TargetStatus::Success { String::new() } else { reason(why) },
        inferred: delivery.inferred,
        ..End::bad(status, "")
    }
}

/// Follows the deliveries until each is final. The hosts go on whatever this controller's database does, so that a failure
/// to look is no end of theirs.
pub(super) async fn follow(
    jobs: &Jobs,
    job: &Job,
    main: &TaskId,
    ours: &[&Target],
    stop: &Stop,
) -> Result<()> {
    let mut cancelled = false;
    let mut known = BTreeSet::new();
    // Hosts that are away may be for hours.
    let mut pace = Pace::patient();
    loop {
        if stop.is_anothers() {
            return Ok(());
        }
        let before = (known.len(), cancelled);
        let cancel = stop.reason().is_some() && !cancelled;
        let looked = async {
            let over = step(jobs, job, main, ours, (cancel, stop), &mut known).await?;
            if over {
                close(jobs, job).await?;
            }
            Ok(over)
        };
        match looked.await {
            Ok(true) => return Ok(()),
            Ok(false) => cancelled |= cancel,
            Err(Error::Store(error)) if !error.is_corrupt() => {
                tracing::warn!(%error, job = job.id, "a job's hosts could not be looked at; it is tried again");
            }
            Err(error) => return Err(error),
        }
        if before != (known.len(), cancelled) {
            pace = Pace::patient();
        }
        tokio::select! {
            () = pace.next() => {}
            () = stop.stopped(), if stop.reason().is_none() => {}
        }
    }
}

/// What of a delivery was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Noted {
    Started,
    /// An end that the host's own word may replace.
    Inferred,
    Told,
}

impl Noted {
    fn of(delivery: &Delivery) -> Option<Self> {
        match delivery.state {
            State::Running => Some(Self::Started),
            state if !state.is_final() => None,
            _ if delivery.inferred => Some(Self::Inferred),
            _ => Some(Self::Told),
        }
    }
}

/// Looks at the deliveries once, and cancels what is open when it is to; says whether all are final. `known` is what was
/// written down of them, by their places.
async fn step(
    jobs: &Jobs,
    job: &Job,
    main: &TaskId,
    ours: &[&Target],
    (cancel, stop): (bool, &Stop),
    known: &mut BTreeSet<(i64, Noted)>,
) -> Result<bool> {
    let ordinals: HashMap<&str, i64> = ours.iter().map(|t| (t.host.as_str(), t.ordinal)).collect();
    let found = dispatch::targets(jobs.store(), main, 0, TARGETS_SHOWN_MAX).await?;
    let late = stop.reason().filter(|reason| *reason == Reason::TimedOut).map(|reason| reason.why(job));
    let (mut started, mut ends, mut news) = (Vec::new(), Vec::new(), Vec::new());
    for target in &found {
        let Some(ordinal) = ordinals.get(target.hostname.as_str()) else { continue };
        let Some(noted) = Noted::of(&target.delivery) else { continue };
        if known.contains(&(*ordinal, noted)) {
            continue;
        }
        match noted {
            Noted::Started => started.push((*ordinal, Happening::Started)),
            Noted::Inferred | Noted::Told => {
                ends.push((*ordinal, target.hostname.as_str(), ended(target, late.as_deref())));
            }
        }
        news.push((*ordinal, noted));
    }
    if !started.is_empty() {
        jobs.record(job.id, &[], &started).await?;
    }
    if !ends.is_empty() {
        jobs.end_agents(job.id, &[], &ends).await?;
    }
    known.extend(news);
    let over = found.iter().all(|target| target.delivery.state.is_final());
    if cancel && !over {
        jobs.dispatch().cancel(&Author::controller("jobs"), main).await?;
    }
    Ok(over)
}

/// Ends the log of the hosts with agents.
pub(super) async fn close(jobs: &Jobs, job: &Job) -> Result<()> {
    let mut lines = vec![line(None, heading("PLAY RECAP"))];
    let targets = store::targets(jobs.store(), job.id).await?;
    for target in targets.iter().filter(|t| t.engine == Engine::Agent) {
        let changed = u8::from(target.standing.changed == Some(true));
        let counts = match target.standing.status {
            TargetStatus::Success => [1, changed, 0, 0, 0],
            TargetStatus::Unreachable => [0, 0, 1, 0, 0],
            TargetStatus::Failed => [0, 0, 0, 1, 0],
            _ => [0, 0, 0, 0, 1],
        };
        lines.push(line(Some(&target.host), recap(&target.host, counts)));
    }
    jobs.record(job.id, &lines, &[]).await.map(drop)
}
