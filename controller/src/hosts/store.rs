//! The SQL of servers, agents' keys, heartbeats and nonces. Nobody else reads these tables.

use std::collections::{BTreeSet, HashMap};

use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, PublicKey};

use super::enrolment::NONCE_BODY_BYTES;
use super::model::{Candidate, KeyStanding, KnownKey, Reachable, Target};
use crate::limits::{BATCH_ROWS_MAX, NONCE_SECONDS};
use crate::store::{Flavour, Query, Store, StoreError, Tx, Value, corrupt, statements};

/// What decides whether an agent is reachable.
macro_rules! reachable {
    () => {
        "h.received_at, h.stopping, h.clock_offset_ms, h.busy, h.keyring, h.features"
    };
}

/// A server with its agent's newest heartbeat.
macro_rules! server {
    ($rest:literal) => {
        concat!(
            "SELECT s.hostname, s.ip, s.grp, s.agent_id, s.created_at, h.received_at, h.stopping, h.cpu_usage, \
                h.memory_usage, h.narrowed FROM servers s LEFT JOIN heartbeats h ON h.agent_id = s.agent_id ",
            $rest
        )
    };
}

/// A key with its server.
macro_rules! agent {
    ($rest:literal) => {
        concat!(
            "SELECT agent_id, hostname, public_key, standing, wanted_group, created_at, updated_at FROM agents ",
            $rest
        )
    };
}

statements! {
    CANDIDATES_ALL = same(concat!("SELECT s.hostname, s.grp, s.agent_id, ", reachable!(), " FROM servers s \
            LEFT JOIN heartbeats h ON h.agent_id = s.agent_id ORDER BY s.hostname"));
    CANDIDATES_NODE = same(concat!("SELECT s.hostname, s.grp, s.agent_id, ", reachable!(), " FROM servers s \
            LEFT JOIN heartbeats h ON h.agent_id = s.agent_id WHERE s.hostname = ?"));
    CANDIDATES_NODES = same(concat!("SELECT s.hostname, s.grp, s.agent_id, ", reachable!(), " FROM servers s \
            LEFT JOIN heartbeats h ON h.agent_id = s.agent_id WHERE s.hostname IN ({list})"));
    CANDIDATES_GROUP = same(concat!("SELECT s.hostname, s.grp, s.agent_id, ", reachable!(), " FROM servers s \
            LEFT JOIN heartbeats h ON h.agent_id = s.agent_id WHERE s.grp = ? ORDER BY s.hostname"));
    CANDIDATES_LABEL = same(concat!("SELECT s.hostname, s.grp, s.agent_id, ", reachable!(), " FROM servers s \
            JOIN server_labels l ON l.hostname = s.hostname AND l.name = ? AND l.value = ? \
            LEFT JOIN heartbeats h ON h.agent_id = s.agent_id ORDER BY s.hostname"));
    /// Reads `ip` so that the row itself is locked, and not its place in an index. SQLite's transactions that write exclude
    /// one another anyway.
    HOLD_ALL = differ("SELECT ip FROM servers ORDER BY hostname LOCK IN SHARE MODE",
            "SELECT ip FROM servers ORDER BY hostname");
    HOLD_NODE = differ("SELECT ip FROM servers WHERE hostname = ? LOCK IN SHARE MODE",
            "SELECT ip FROM servers WHERE hostname = ?");
    HOLD_NODES = differ("SELECT ip FROM servers WHERE hostname IN ({list}) ORDER BY hostname LOCK IN SHARE MODE",
            "SELECT ip FROM servers WHERE hostname IN ({list}) ORDER BY hostname");
    HOLD_GROUP = differ("SELECT ip FROM servers WHERE grp = ? ORDER BY hostname LOCK IN SHARE MODE",
            "SELECT ip FROM servers WHERE grp = ? ORDER BY hostname");
    HOLD_LABEL = differ("SELECT s.ip FROM servers s JOIN server_labels l ON l.hostname = s.hostname AND l.name = ? \
            AND l.value = ? ORDER BY s.hostname LOCK IN SHARE MODE",
            "SELECT s.ip FROM servers s JOIN server_labels l ON l.hostname = s.hostname AND l.name = ? AND l.value = ? \
            ORDER BY s.hostname");
    REACHABLE = same(concat!("SELECT a.agent_id AS hostname, a.agent_id, a.standing, ", reachable!(), " FROM agents a \
            LEFT JOIN heartbeats h ON h.agent_id = a.agent_id WHERE a.agent_id IN ({list})"));
    LIST_SERVERS = same(server!("WHERE s.hostname > ? AND (? IS NULL OR s.grp = ?) AND (? IS NULL OR EXISTS \
            (SELECT 1 FROM server_labels l WHERE l.hostname = s.hostname AND l.name = ? AND l.value = ?)) \
            ORDER BY s.hostname LIMIT ?"));
    SELECT_SERVER = same(server!("WHERE s.hostname = ?"));
    LOCK_SERVER = same("UPDATE servers SET grp = grp WHERE hostname = ?");
    SELECT_SERVER_AGENT = same("SELECT agent_id FROM servers WHERE hostname = ?");
    INSERT_SERVER = same("INSERT INTO servers (hostname, ip, grp, agent_id, created_at) VALUES (?, ?, ?, ?, ?)");
    UPDATE_SERVER = same("UPDATE servers SET ip = COALESCE(?, ip), grp = COALESCE(?, grp) WHERE hostname = ?");
    SET_SERVER_AGENT = same("UPDATE servers SET agent_id = ? WHERE hostname = ?");
    SET_SERVER_IP = same("UPDATE servers SET ip = ? WHERE hostname = ? AND ip = ''");
    DELETE_SERVER = same("DELETE FROM servers WHERE hostname = ?");
    PUBLIC_KEYS = same("SELECT agent_id, public_key FROM agents WHERE agent_id IN ({list})");
    DESCRIBED = same("SELECT ip, grp FROM servers WHERE hostname = ?");
    LABELS_OF = same("SELECT name, value FROM server_labels WHERE hostname = ? ORDER BY name");
    SELECT_LABELS = same("SELECT hostname, name, value FROM server_labels WHERE hostname IN ({list}) \
            ORDER BY hostname, name");
    INSERT_LABELS = same("INSERT INTO server_labels (hostname, name, value) VALUES {rows:3}");
    DELETE_LABELS = same("DELETE FROM server_labels WHERE hostname = ?");
    SELECT_AGENT = same(agent!("WHERE agent_id = ?"));
    LIST_AGENTS = same(agent!("WHERE agent_id > ? AND (? IS NULL OR standing = ?) ORDER BY agent_id LIMIT ?"));
    CLAIMS = same(agent!("WHERE hostname = ? AND standing = 'pending' ORDER BY agent_id LIMIT ?"));
    LIST_KEYS = same(agent!("WHERE standing = 'accepted' AND hostname > ? ORDER BY hostname LIMIT ?"));
    FIRST_KEYS = same("SELECT hostname, MIN(created_at) AS first_at FROM agents WHERE hostname IN ({list}) AND \
            standing IN ('accepted', 'replaced') GROUP BY hostname");
    SELECT_KEY = same(agent!("WHERE standing = 'accepted' AND hostname = ?"));
    CHANGED_AGENTS = same(agent!("WHERE updated_at >= ?"));
    GONE = same("SELECT agent_id FROM agents WHERE agent_id IN ({list}) AND (standing = 'revoked' OR \
            standing = 'replaced' AND updated_at < ?)");
    INSERT_AGENT = same("INSERT INTO agents (agent_id, hostname, public_key, standing, wanted_group, sealing_key, \
            created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    SET_STANDING = same("UPDATE agents SET standing = ?, hostname = ?, updated_at = ? WHERE agent_id = ?");
    GROUPS = same("SELECT DISTINCT grp FROM servers WHERE hostname IN ({list})");
    INSERT_NONCE = same("INSERT INTO nonces (nonce, expires_at) VALUES (?, ?)");
    DELETE_OLD_NONCES = same("DELETE FROM nonces WHERE expires_at < ?");
}

#[derive(sqlx::FromRow)]
struct ReachableRow {
    hostname: String,
    #[sqlx(default)]
    grp: String,
    agent_id: Option<String>,
    #[sqlx(default)]
    standing: Option<String>,
    received_at: Option<i64>,
    stopping: Option<i64>,
    clock_offset_ms: Option<i64>,
    busy: Option<String>,
    keyring: Option<i64>,
    features: Option<String>,
}

impl ReachableRow {
    /// Without a standing of its own, the row came through `servers.agent_id`, which names accepted keys only.
    fn reachable(&self) -> Result<Option<Reachable>, StoreError> {
        let Some(id) = &self.agent_id else { return Ok(None) };
        let features = self.features.as_deref().map(serde_json::from_str).transpose().map_err(corrupt)?;
        Ok(Some(Reachable {
            agent_id: id.parse().map_err(corrupt)?,
            accepted: self.standing.as_deref().is_none_or(|s| s == KeyStanding::Accepted.as_str()),
            last_heartbeat: self.received_at.map(Micros),
            stopping: self.stopping.is_some_and(|n| n != 0),
            clock_offset_ms: self.clock_offset_ms.unwrap_or(0),
            busy: self.busy.clone(),
            keyring: self.keyring.unwrap_or(0).unsigned_abs(),
            features,
        }))
    }
}

/// The servers that a target names, by hostname or in the order in which it names them. Holds them until the end of the transaction against who replaces or
/// revokes their keys or begins a new log: all of those lock the server, and end what they find. So what is written for
/// these servers in this transaction is found, or comes after.
pub(super) async fn candidates(tx: &mut Tx, target: &Target) -> Result<Vec<Candidate>, StoreError> {
    let (hold, query): (Query, Query) = match target {
        Target::Nodes(hosts) => return named(tx, hosts).await,
        Target::All => (HOLD_ALL.query(), CANDIDATES_ALL.query()),
        Target::Node(host) => (HOLD_NODE.bind(host), CANDIDATES_NODE.bind(host)),
        Target::Group(group) => (HOLD_GROUP.bind(group.as_str()), CANDIDATES_GROUP.bind(group.as_str())),
        Target::Label { name, value } => (
            HOLD_LABEL.bind(name.as_str()).bind(value.as_str()),
            CANDIDATES_LABEL.bind(name.as_str()).bind(value.as_str()),
        ),
    };
    held(tx, hold, query).await
}

async fn held(tx: &mut Tx, hold: Query, query: Query) -> Result<Vec<Candidate>, StoreError> {
    if tx.flavour() == Flavour::MySql {
        tx.all::<(String,)>(hold).await?;
    }
    let rows: Vec<ReachableRow> = tx.all(query).await?;
    rows.into_iter()
        .map(|row| {
            let agent = row.reachable()?;
            Ok(Candidate { hostname: row.hostname.parse().map_err(corrupt)?, group: row.grp, agent })
        })
        .collect()
}

/// Those of these servers that are there, in this order and each once.
async fn named(tx: &mut Tx, hosts: &[Hostname]) -> Result<Vec<Candidate>, StoreError> {
    // Locked by name, as everybody does.
    let sorted: Vec<&Hostname> = hosts.iter().collect::<BTreeSet<_>>().into_iter().collect();
    let mut found: HashMap<Hostname, Candidate> = HashMap::new();
    for some in sorted.chunks(BATCH_ROWS_MAX) {
        let names = || some.iter().map(|host| host.as_str());
        let all = held(tx, HOLD_NODES.query().list(names()), CANDIDATES_NODES.query().list(names())).await?;
        found.extend(all.into_iter().map(|one| (one.hostname.clone(), one)));
    }
    Ok(hosts.iter().filter_map(|host| found.remove(host)).collect())
}

/// The groups of these servers.
pub(super) async fn groups(store: &Store, hosts: &[Hostname]) -> Result<Vec<String>, StoreError> {
    let mut all = Vec::new();
    for some in hosts.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<(String,)> = store.all(GROUPS.query().list(some)).await?;
        all.extend(rows.into_iter().map(|(group,)| group));
    }
    Ok(all)
}

/// How reachable these agents are.
pub(super) async fn reachable(
    tx: &mut Tx,
    agents: &[AgentId],
) -> Result<HashMap<AgentId, Reachable>, StoreError> {
    let mut all = HashMap::new();
    for some in agents.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<ReachableRow> = tx.all(REACHABLE.query().list(some)).await?;
        for row in rows {
            if let Some(one) = row.reachable()? {
                all.insert(one.agent_id.clone(), one);
            }
        }
    }
    Ok(all)
}

/// A server as it is stored, with what its agent's newest heartbeat says.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct ServerRow {
    pub(super) hostname: String,
    pub(super) ip: String,
    pub(super) grp: String,
    pub(super) agent_id: Option<String>,
    pub(super) created_at: i64,
    pub(super) received_at: Option<i64>,
    pub(super) stopping: Option<i64>,
    pub(super) cpu_usage: Option<f64>,
    pub(super) memory_usage: Option<f64>,
    pub(super) narrowed: Option<i64>,
}

/// What a list of servers is narrowed to.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerFilter {
    pub(super) group: Option<String>,
    pub(super) label: Option<(String, String)>,
}

/// Servers by name, after this one.
pub(super) async fn list_servers(
    store: &Store,
    filter: &ServerFilter,
    after: &str,
    limit: usize,
) -> Result<Vec<ServerRow>, StoreError> {
    let group = filter.group.as_deref();
    let name = filter.label.as_ref().map(|(n, _)| n.as_str());
    let value = filter.label.as_ref().map(|(_, v)| v.as_str());
    let query = LIST_SERVERS.bind(after).bind(group).bind(group).bind(name).bind(name).bind(value);
    store.all(query.bind(limit as u64)).await
}

/// One server.
pub(super) async fn server(store: &Store, host: &Hostname) -> Result<Option<ServerRow>, StoreError> {
    store.first(SELECT_SERVER.bind(host)).await
}

/// The accepted agent of a server; the outer `None` when there is no such server. Holds the server until the end of
/// the transaction, so that two keys can't both find it free.
pub(super) async fn server_agent(
    tx: &mut Tx,
    host: &Hostname,
) -> Result<Option<Option<AgentId>>, StoreError> {
    tx.run(LOCK_SERVER.bind(host)).await?;
    let row: Option<(Option<String>,)> = tx.first(SELECT_SERVER_AGENT.bind(host)).await?;
    row.map(|(id,)| id.map(|id| id.parse().map_err(corrupt)).transpose()).transpose()
}

/// The public keys of these agents in PEM, whatever their standing.
pub(super) async fn public_keys(
    store: &Store,
    agents: &[AgentId],
) -> Result<Vec<(String, String)>, StoreError> {
    store.all(PUBLIC_KEYS.query().list(agents)).await
}

/// A server as the audit trail shows it.
pub(super) async fn described(tx: &mut Tx, host: &Hostname) -> Result<serde_json::Value, StoreError> {
    let row: Option<(String, String)> = tx.first(DESCRIBED.bind(host)).await?;
    let labels: Vec<(String, String)> = tx.all(LABELS_OF.bind(host)).await?;
    let labels: std::collections::BTreeMap<String, String> = labels.into_iter().collect();
    Ok(row.map_or(
        serde_json::Value::Null,
        |(ip, group)| serde_json::json!({ "ip": ip, "group": group, "labels": labels }),
    ))
}

/// Adds a server.
pub(super) async fn insert_server(
    tx: &mut Tx,
    host: &Hostname,
    ip: &str,
    group: &str,
    agent: Option<&AgentId>,
    now: Micros,
) -> Result<(), StoreError> {
    let query = INSERT_SERVER.bind(host).bind(ip).bind(group).bind(agent.map(AgentId::as_str)).bind(now);
    tx.run(query).await.map(drop)
}

/// Changes a server's address and group; what is absent stays.
pub(super) async fn update_server(
    tx: &mut Tx,
    host: &Hostname,
    ip: Option<&str>,
    group: Option<&str>,
) -> Result<(), StoreError> {
    tx.run(UPDATE_SERVER.bind(ip).bind(group).bind(host)).await.map(drop)
}

/// Says which agent a server has.
pub(super) async fn set_server_agent(
    tx: &mut Tx,
    host: &Hostname,
    agent: Option<&AgentId>,
) -> Result<(), StoreError> {
    tx.run(SET_SERVER_AGENT.bind(agent.map(AgentId::as_str)).bind(host)).await.map(drop)
}

/// Notes where an agent speaks from, unless an address is known.
pub(super) async fn set_server_ip(tx: &mut Tx, host: &Hostname, ip: &str) -> Result<(), StoreError> {
    tx.run(SET_SERVER_IP.bind(ip).bind(host)).await.map(drop)
}

/// Deletes a server with its labels.
pub(super) async fn delete_server(tx: &mut Tx, host: &Hostname) -> Result<(), StoreError> {
    tx.run(DELETE_LABELS.bind(host)).await?;
    tx.run(DELETE_SERVER.bind(host)).await.map(drop)
}

/// Labels of these servers: hostname, name, value.
pub(super) async fn labels(
    store: &Store,
    hosts: &[String],
) -> Result<Vec<(String, String, String)>, StoreError> {
    let mut all = Vec::new();
    for some in hosts.chunks(BATCH_ROWS_MAX) {
        all.extend(store.all(SELECT_LABELS.query().list(some.iter().map(String::as_str))).await?);
    }
    Ok(all)
}

/// Replaces a server's labels.
pub(super) async fn set_labels(
    tx: &mut Tx,
    host: &Hostname,
    labels: &std::collections::BTreeMap<String, String>,
) -> Result<(), StoreError> {
    tx.run(DELETE_LABELS.bind(host)).await?;
    if labels.is_empty() {
        return Ok(());
    }
    let rows =
        labels.iter().map(|(k, v)| -> [Value; 3] { [host.into(), k.as_str().into(), v.as_str().into()] });
    tx.run(INSERT_LABELS.query().rows(rows)).await.map(drop)
}

/// A key as it is stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct AgentRow {
    pub(super) agent_id: String,
    pub(super) hostname: String,
    pub(super) public_key: String,
    pub(super) standing: String,
    pub(super) wanted_group: Option<String>,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
}

impl AgentRow {
    pub(super) fn known(&self) -> Result<KnownKey, StoreError> {
        let key = PublicKey::from_pem(&self.public_key).map_err(corrupt)?;
        Ok(KnownKey { key, standing: self.standing()? })
    }

    pub(super) fn standing(&self) -> Result<KeyStanding, StoreError> {
        KeyStanding::parse(&self.standing).ok_or_else(|| corrupt("standing"))
    }
}

/// One key, inside a transaction.
pub(super) async fn agent(tx: &mut Tx, id: &AgentId) -> Result<Option<AgentRow>, StoreError> {
    tx.first(SELECT_AGENT.bind(id)).await
}

/// One key.
pub(super) async fn agent_of(store: &Store, id: &AgentId) -> Result<Option<AgentRow>, StoreError> {
    store.first(SELECT_AGENT.bind(id)).await
}

/// Those of these whose key was revoked, or replaced before this moment.
pub(super) async fn gone(
    store: &Store,
    agents: &[AgentId],
    replaced_before: Micros,
) -> Result<Vec<AgentId>, StoreError> {
    let rows: Vec<(String,)> =
        store.all(GONE.query().list(agents.iter().map(AgentId::as_str)).bind(replaced_before.0)).await?;
    rows.into_iter().map(|(id,)| id.parse().map_err(corrupt)).collect()
}

/// Keys by agent id, after this one.
pub(super) async fn list_agents(
    store: &Store,
    standing: Option<KeyStanding>,
    after: &str,
    limit: usize,
) -> Result<Vec<AgentRow>, StoreError> {
    let standing = standing.map(KeyStanding::as_str);
    store.all(LIST_AGENTS.bind(after).bind(standing).bind(standing).bind(limit as u64)).await
}

/// Pending keys that claim this name.
pub(super) async fn claims(
    store: &Store,
    host: &Hostname,
    limit: usize,
) -> Result<Vec<AgentRow>, StoreError> {
    store.all(CLAIMS.bind(host).bind(limit as u64)).await
}

/// Accepted keys by hostname, after this one.
pub(super) async fn list_keys(store: &Store, after: &str, limit: usize) -> Result<Vec<AgentRow>, StoreError> {
    store.all(LIST_KEYS.bind(after).bind(limit as u64)).await
}

/// The accepted key of a host.
pub(super) async fn key_of(store: &Store, host: &Hostname) -> Result<Option<AgentRow>, StoreError> {
    store.first(SELECT_KEY.bind(host)).await
}

/// When each of these hosts' first key was accepted.
pub(super) async fn first_keys_at(
    store: &Store,
    hosts: &[String],
) -> Result<HashMap<String, i64>, StoreError> {
    let mut all = HashMap::new();
    for some in hosts.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<(String, i64)> =
            store.all(FIRST_KEYS.query().list(some.iter().map(String::as_str))).await?;
        all.extend(rows);
    }
    Ok(all)
}

/// Keys that changed at or after this moment.
pub(super) async fn changed_agents(store: &Store, since: i64) -> Result<Vec<AgentRow>, StoreError> {
    store.all(CHANGED_AGENTS.bind(since)).await
}

/// Adds a key.
pub(super) async fn insert_agent(
    tx: &mut Tx,
    key: &PublicKey,
    host: &Hostname,
    standing: KeyStanding,
    wanted_group: Option<&str>,
    now: Micros,
) -> Result<(), StoreError> {
    let id = key.agent_id();
    let query =
        INSERT_AGENT.bind(&id).bind(host).bind(key.to_pem()).bind(standing.as_str()).bind(wanted_group);
    tx.run(query.bind(None::<&str>).bind(now).bind(now)).await.map(drop)
}

/// Changes a key's standing.
pub(super) async fn set_standing(
    tx: &mut Tx,
    id: &AgentId,
    standing: KeyStanding,
    host: &Hostname,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(SET_STANDING.bind(standing.as_str()).bind(host).bind(now).bind(id)).await.map(drop)
}

/// Uses a nonce up, for as long as any controller may believe it; says whether this was the first time.
pub(super) async fn use_nonce(tx: &mut Tx, nonce: &str, now: Micros) -> Result<bool, StoreError> {
    // Time and randomness tell it from all others; the rest is its tag.
    let unique: String = nonce.chars().take(2 * NONCE_BODY_BYTES).collect();
    match tx.run(INSERT_NONCE.bind(unique).bind(now.plus_seconds(2 * NONCE_SECONDS))).await {
        Err(StoreError::Duplicate(_)) => Ok(false),
        inserted => inserted.map(|_| true),
    }
}

/// Forgets nonces that are too old.
pub(super) async fn delete_old_nonces(store: &Store, now: Micros) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.run(DELETE_OLD_NONCES.bind(now)).await?;
    tx.commit().await
}
