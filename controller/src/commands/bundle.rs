//! A task as proof, to be checked by anyone; see [`signet_common::bundle`].

use std::collections::BTreeSet;

use signet_common::bundle::{Bundle, Message, SignedReport, Target};
use signet_common::envelope::{DsseJson, SealError};
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, TaskId};

use crate::app::App;
use crate::dispatch;
use crate::error::{Error, Result};
use crate::limits::{BUNDLE_MESSAGES_AT_ONCE, BUNDLE_PARTS_BYTES_MAX, BUNDLE_TARGETS_AT_ONCE};

/// What is collected of a task, up to a bound.
struct Parts {
    messages: Vec<Message>,
    reports: Vec<SignedReport>,
    targets: Vec<Target>,
    bytes: usize,
}

impl Parts {
    fn room(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > BUNDLE_PARTS_BYTES_MAX {
            return Err(Error::TooLarge("the task is too large for one bundle".into()));
        }
        Ok(())
    }
}

/// The bundle of a task, signed by the fleet's key.
///
/// # Errors
/// [`Error::NotFound`], [`Error::TooLarge`], or the database's.
pub(super) async fn bundle(app: &App, id: &TaskId) -> Result<DsseJson> {
    app.commands.task(id).await?;
    let _room = app.commands.bundling()?;
    let mut parts = Parts { messages: Vec::new(), reports: Vec::new(), targets: Vec::new(), bytes: 0 };
    messages(app, id, &mut parts).await?;
    targets(app, id, &mut parts).await?;
    let keys = app.keys.newest(&app.store).await?;
    let Parts { messages, reports, targets, .. } = parts;
    let iat = Micros::now().seconds();
    let bundle =
        Bundle { task_id: id.clone(), iat, keyring: keys.chain().to_vec(), messages, reports, targets };
    let signed = tokio::task::spawn_blocking(move || bundle.sign(keys.signing())).await;
    signed.map_err(|e| Error::Internal(e.to_string()))?.map_err(|error| match error {
        SealError::Size(..) => Error::TooLarge("the task is too large for one bundle".into()),
        other => Error::Internal(other.to_string()),
    })
}

async fn messages(app: &App, id: &TaskId, parts: &mut Parts) -> Result<()> {
    let mut after = String::new();
    loop {
        let some = app.dispatch.messages(id, &after, BUNDLE_MESSAGES_AT_ONCE).await?;
        let last = some.len() < BUNDLE_MESSAGES_AT_ONCE;
        for (jti, envelope) in some {
            jti.as_str().clone_into(&mut after);
            parts.room(envelope.as_ref().map_or(0, |e| e.body.len()))?;
            parts.messages.push(Message { jti, envelope: envelope.map(|e| e.to_dsse()) });
        }
        if last {
            return Ok(());
        }
    }
}

async fn targets(app: &App, id: &TaskId, parts: &mut Parts) -> Result<()> {
    let (mut after, mut seen) = (0, BTreeSet::new());
    loop {
        let some = dispatch::targets(&app.store, id, after, BUNDLE_TARGETS_AT_ONCE).await?;
        let Some(last) = some.last() else { return Ok(()) };
        after = last.ordinal;
        let wanted: Vec<(AgentId, Jti)> = some
            .iter()
            .filter_map(|target| Some((target.agent_id.clone()?, target.delivery.report.clone()?)))
            // One report may tell the ends of many tasks, and here of one host only.
            .filter(|pair| seen.insert(pair.clone()))
            .collect();
        let kept = reports(app, &wanted, parts).await?;
        for target in some {
            parts.room(target.delivery.reason.len())?;
            parts.targets.push(shown(target, &kept));
        }
    }
}

/// Adds these reports, and says which were still kept.
async fn reports(app: &App, wanted: &[(AgentId, Jti)], parts: &mut Parts) -> Result<BTreeSet<Jti>> {
    let agents: Vec<AgentId> = wanted.iter().map(|(agent, _)| agent.clone()).collect();
    let keys = app.hosts.public_keys(&agents).await?;
    let mut kept = BTreeSet::new();
    if wanted.is_empty() {
        return Ok(kept);
    }
    for (agent, jti, envelope) in app.dispatch.reports(wanted).await? {
        let Some(public_key) = keys.get(agent.as_str()).cloned() else { continue };
        parts.room(envelope.body.len())?;
        kept.insert(jti.clone());
        parts.reports.push(SignedReport { jti, public_key, envelope: envelope.to_dsse() });
    }
    Ok(kept)
}

fn shown(target: dispatch::Target, kept: &BTreeSet<Jti>) -> Target {
    let delivery = target.delivery;
    Target {
        hostname: target.hostname,
        // Who was refused at once got no message.
        agent_id: target.jti.as_ref().and(target.agent_id),
        jti: target.jti,
        state: delivery.state.as_str().to_owned(),
        reason: delivery.reason,
        exit_code: delivery.exit_code,
        report: delivery.report.filter(|jti| kept.contains(jti)),
    }
}
