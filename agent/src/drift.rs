//! How deployed paths stand: looked at after each deployment and every now and then, told in heartbeats.

use std::sync::Arc;

use signet_common::deploy::Standing;
use signet_common::limits::DEPLOY_STANDINGS_MAX;
use signet_common::messages::Outcome;

use crate::agent::Agent;
use crate::deploy::{self, Last};
use crate::limits::{DRIFT_AFTER, DRIFT_EVERY};
use crate::run::RunEvent;

/// Looks until the agent stops.
pub(crate) async fn run(agent: Arc<Agent>) {
    let mut every = tokio::time::interval(DRIFT_EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            // Not at once: it would take from the next deployment, and from what was just deployed and starts.
            () = after(&agent) => {}
            () = agent.stop.cancelled() => return,
        }
        tokio::select! {
            () = look(&agent) => {}
            () = agent.stop.cancelled() => return,
        }
    }
}

/// A while after a deployment.
async fn after(agent: &Agent) {
    agent.deployed.notified().await;
    tokio::time::sleep(DRIFT_AFTER).await;
}

/// One after the other: nobody waits for it.
async fn look(agent: &Agent) {
    let known = agent.known.lock().await.newest();
    let mut standings = Vec::new();
    for last in known {
        // What a deployment is at work on is looked at after it.
        let before = agent.standings.borrow().iter().find(|s| s.path == last.deploy.path).cloned();
        standings.extend(standing(agent, &last).await.or(before));
    }
    standings.sort_by_key(|s| s.commit.as_ref() == Some(&s.deployed) && !s.edited);
    standings.truncate(DEPLOY_STANDINGS_MAX);
    let changed = agent.standings.send_if_modified(|held| {
        let changed = *held != standings;
        *held = standings;
        changed
    });
    if changed {
        agent.beat.notify_one();
    }
}

/// `None` when nobody could look.
async fn standing(agent: &Agent, last: &Last) -> Option<Standing> {
    let here = deploy::Here {
        data: &agent.data,
        roots: agent.policy.deploy_roots(),
        narrowed: agent.policy.narrows_shell(),
        own_user: &agent.own_user,
    };
    let (spec, report) = deploy::look(last, &here)
        .inspect_err(|error| tracing::debug!(%error, "a deployed path can't be looked at"))
        .ok()?;
    let mut running = agent
        .runner
        .start(spec)
        .await
        .inspect_err(|error| tracing::debug!(%error, "a deployed path can't be looked at"))
        .ok()?;
    let mut result = loop {
        if let RunEvent::Finished(result) = running.next().await {
            break result;
        }
    };
    report.amend(&mut result);
    let (path, deployed) = (last.deploy.path.clone(), last.commit.clone());
    match (result.outcome, result.deploy) {
        (Outcome::Succeeded, Some(found)) => {
            Some(Standing { path, deployed, commit: found.commit, edited: found.changed })
        }
        // It looked, and there is nothing that it can read.
        (Outcome::Failed, Some(_)) => Some(Standing { path, deployed, commit: None, edited: false }),
        _ => None,
    }
}
