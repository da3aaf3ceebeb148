//! How deployed paths stand, as agents' heartbeats tell it.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use signet_common::AgentId;
use signet_common::deploy::Standing;
use signet_common::limits::DEPLOY_STANDINGS_MAX;
use signet_common::messages::Heartbeat;

use super::service::Hosts;
use crate::error::{Error, Result};
use crate::limits::BATCH_ROWS_MAX;
use crate::store::{Store, StoreError, Tx, Value, statements};

statements! {
    DELETE = same("DELETE FROM deploy_standings WHERE agent_id IN ({list})");
    INSERT = same("INSERT INTO deploy_standings (agent_id, place, path, deployed, commit_id, edited, drifted) \
            VALUES {rows:7}");
    LIST = same("SELECT s.hostname, s.grp, d.place, d.path, d.deployed, d.commit_id, d.edited, d.drifted, h.received_at \
            FROM deploy_standings d JOIN servers s ON s.agent_id = d.agent_id JOIN heartbeats h ON h.agent_id = d.agent_id \
            WHERE (? IS NULL OR s.hostname = ?) AND (? IS NULL OR s.grp = ?) AND (? IS NULL OR d.path = ?) \
            AND (? IS NULL OR d.drifted = ?) AND (s.hostname > ? OR s.hostname = ? AND d.place > ?) \
            ORDER BY s.hostname, d.place LIMIT ?");
}

/// One deployed path of one host.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Deployment {
    /// The host.
    pub hostname: String,
    /// Its group.
    pub grp: String,
    /// The digest of the path, in hex: the place in the list within a host.
    pub place: String,
    /// The path.
    pub path: String,
    /// The commit that was deployed last.
    pub deployed: String,
    /// The commit on which it stands; none when there is nothing readable.
    pub commit_id: Option<String>,
    /// Whether files were changed by hand: 0 or 1.
    pub edited: i64,
    /// Whether it is not what was deployed: 0 or 1.
    pub drifted: i64,
    /// When the agent said so last, in microseconds.
    pub received_at: i64,
}

/// What a list of deployed paths is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFilter {
    /// One host.
    pub hostname: Option<String>,
    /// The hosts of a group.
    pub group: Option<String>,
    /// One path.
    pub path: Option<String>,
    /// What is as it was deployed, or what is not.
    pub drifted: Option<bool>,
}

/// What a heartbeat says of deployed paths, each once.
pub(super) fn standings(beat: &Heartbeat) -> BTreeMap<&str, &Standing> {
    beat.deploys
        .iter()
        .take(DEPLOY_STANDINGS_MAX)
        .map(|standing| (standing.path.as_str(), standing))
        .collect()
}

/// By which one knows whether any of these changed; empty for none.
pub(super) fn summary(standings: &BTreeMap<&str, &Standing>) -> Result<String> {
    if standings.is_empty() {
        return Ok(String::new());
    }
    let all: Vec<_> = standings.values().collect();
    let text = serde_json::to_vec(&all).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(hex::encode(digest(&SHA256, &text)))
}

/// Replaces what is known of these agents' paths.
pub(super) async fn put(tx: &mut Tx, changed: &[&(AgentId, Heartbeat)]) -> Result<(), StoreError> {
    let mut rows: Vec<[Value; 7]> = Vec::new();
    for (agent, beat) in changed {
        for (path, standing) in standings(beat) {
            let drifted = standing.edited || standing.commit.as_ref() != Some(&standing.deployed);
            rows.push([
                agent.into(),
                hex::encode(digest(&SHA256, path.as_bytes())).into(),
                path.into(),
                standing.deployed.as_str().into(),
                standing.commit.as_ref().map(|commit| commit.as_str()).into(),
                standing.edited.into(),
                drifted.into(),
            ]);
        }
    }
    for some in changed.chunks(BATCH_ROWS_MAX) {
        tx.run(DELETE.query().list(some.iter().map(|(agent, _)| agent))).await?;
    }
    for some in rows.chunks(BATCH_ROWS_MAX) {
        tx.run(INSERT.query().rows(some.iter().cloned())).await?;
    }
    Ok(())
}

/// Forgets what is known of an agent's paths.
pub(super) async fn delete(tx: &mut Tx, agent: &AgentId) -> Result<(), StoreError> {
    tx.run(DELETE.query().list([agent])).await.map(drop)
}

async fn list(
    store: &Store,
    filter: &DeploymentFilter,
    (host, place): (&str, &str),
    limit: usize,
) -> Result<Vec<Deployment>, StoreError> {
    let (hostname, group, path) =
        (filter.hostname.as_deref(), filter.group.as_deref(), filter.path.as_deref());
    let query = LIST.bind(hostname).bind(hostname).bind(group).bind(group).bind(path).bind(path);
    let query = query.bind(filter.drifted).bind(filter.drifted).bind(host).bind(host).bind(place);
    store.all(query.bind(limit as u64)).await
}

impl Hosts {
    /// Deployed paths behind this host and place, by host and place.
    ///
    /// # Errors
    /// The database's.
    pub async fn deployments(
        &self,
        filter: &DeploymentFilter,
        after: (&str, &str),
        limit: usize,
    ) -> Result<Vec<Deployment>> {
        Ok(list(&self.store, filter, after, limit).await?)
    }
}
