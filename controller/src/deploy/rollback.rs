//! Back to a commit that was deployed before, on every host of a job.

use std::time::Duration;

use signet_common::deploy::CommitId;
use tokio::time::Instant;

use super::agents::messages::send;
use super::ask::Origin;
use super::model::{self, Job, Plan, Rollback, Target};
use super::pace::Pace;
use super::service::Jobs;
use super::stop::Stop;
use super::store;
use super::tasks::{Part, task};
use super::text::reason;
use crate::audit::Author;
use crate::dispatch::{self, model::State};
use crate::error::{Error, Result};
use crate::http::extract::Caller;
use crate::limits::{PREFLIGHT_ACCEPT_SECONDS, TARGETS_SHOWN_MAX};

impl Jobs {
    /// Brings every host of a job that is over back to a commit, as a new job.
    ///
    /// # Errors
    /// 404 without the job, 409 while it is under way or when its log-ins are gone, 422 for a commit that no finished job
    /// brought to any of these hosts, at this path and from this repository.
    pub(super) async fn rollback(
        &self,
        by: &Author,
        caller: &Caller,
        id: i64,
        commit: CommitId,
    ) -> Result<i64> {
        let (job, mut new) = self.finished(caller, id).await?;
        let hosts = new.targets.iter().map(|target| target.row().0.to_ascii_lowercase()).collect();
        if store::deployed(self.store(), commit.as_str(), &job.plan, hosts).await? == 0 {
            let why = "no finished job deployed this commit to any of the job's hosts";
            return Err(Error::InvalidFields(vec![("commit".into(), why.into())]));
        }
        let rollback = Some(Rollback { commit, job_id: model::shown(id) });
        let plan = Plan { options: model::Options { rollback, ..job.plan.options }, ..job.plan };
        new.origin = Origin::Rollback;
        self.make(by, caller, &plan, &new).await
    }
}

/// Has the hosts with agents that are there get the commit before any of them changes. Says why they can't all have it.
pub(super) async fn preflight(
    jobs: &Jobs,
    job: &Job,
    ours: &[&Target],
    commit: &CommitId,
    stop: &Stop,
) -> Result<Option<String>> {
    let asking = task(job.id, Part::Preflight)?;
    if dispatch::targets(jobs.store(), &asking, 0, 1).await?.is_empty()
        && let Err(why) = send(jobs, job, ours, Part::Preflight, Some(commit), stop).await?
    {
        return Ok(Some(why));
    }
    // Who has not even taken the question by then is away, and is asked again by the deployment itself.
    let patience = Instant::now() + Duration::from_secs(PREFLIGHT_ACCEPT_SECONDS);
    let pace = Pace::begin();
    loop {
        let asked = dispatch::targets(jobs.store(), &asking, 0, TARGETS_SHOWN_MAX).await?;
        let in_state = |states: &[State]| asked.iter().any(|t| states.contains(&t.delivery.state));
        let away = in_state(&[State::Waiting, State::Sent]);
        if !in_state(&[State::Accepted, State::Running]) && (!away || Instant::now() >= patience) {
            if away {
                jobs.dispatch().cancel(&Author::controller("jobs"), &asking).await?;
            }
            return Ok(lacking(&asked, commit));
        }
        if stop.reason().is_some() {
            return Ok(Some("the job was ended before every host had the commit".into()));
        }
        pace.next().await;
    }
}

/// Names the hosts that can't have the commit.
fn lacking(asked: &[dispatch::Target], commit: &CommitId) -> Option<String> {
    let failed = asked.iter().filter(|target| target.delivery.state.is_failure());
    let lacking: Vec<String> =
        failed.map(|target| format!("{}: {}", target.hostname, reason(&target.delivery.reason))).collect();
    let why = || {
        format!(
            "nothing was changed by agents, because not every host can have {commit}: {}",
            lacking.join("; ")
        )
    };
    (!lacking.is_empty()).then(why)
}
