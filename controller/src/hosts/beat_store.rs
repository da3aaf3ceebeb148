//! The SQL of heartbeats. Nobody else reads this table but to tell who is online.

use std::collections::HashMap;

use signet_common::AgentId;
use signet_common::ids::StartId;
use signet_common::time::Micros;

use crate::limits::{BATCH_ROWS_MAX, KEYRING_HOSTS_MAX, KEYRING_NEWER_SHOWN_MAX};
use crate::store::{Store, StoreError, Tx, Value, corrupt, statements};

statements! {
    UPSERT_HEARTBEATS = differ(
        "INSERT INTO heartbeats (agent_id, start_id, n, received_at, clock_offset_ms, log_id, head, chain, version, \
                features, keyring, stopping, busy, narrowed, isolation, waiting, running, cpu_usage, memory_usage, \
                disk_usage, load_average, uptime, boot_id, refused, deploys) VALUES {rows:25} ON DUPLICATE KEY UPDATE \
                start_id = VALUES(start_id), n = VALUES(n), received_at = VALUES(received_at), \
                clock_offset_ms = VALUES(clock_offset_ms), log_id = VALUES(log_id), head = VALUES(head), \
                chain = VALUES(chain), version = VALUES(version), features = VALUES(features), \
                keyring = VALUES(keyring), stopping = VALUES(stopping), busy = VALUES(busy), \
                narrowed = VALUES(narrowed), isolation = VALUES(isolation), waiting = VALUES(waiting), \
                running = VALUES(running), cpu_usage = VALUES(cpu_usage), memory_usage = VALUES(memory_usage), \
                disk_usage = VALUES(disk_usage), load_average = VALUES(load_average), uptime = VALUES(uptime), \
                boot_id = VALUES(boot_id), refused = VALUES(refused), deploys = VALUES(deploys)",
        "INSERT INTO heartbeats (agent_id, start_id, n, received_at, clock_offset_ms, log_id, head, chain, version, \
                features, keyring, stopping, busy, narrowed, isolation, waiting, running, cpu_usage, memory_usage, \
                disk_usage, load_average, uptime, boot_id, refused, deploys) VALUES {rows:25} ON CONFLICT (agent_id) DO UPDATE \
                SET start_id = excluded.start_id, n = excluded.n, received_at = excluded.received_at, \
                clock_offset_ms = excluded.clock_offset_ms, log_id = excluded.log_id, head = excluded.head, \
                chain = excluded.chain, version = excluded.version, features = excluded.features, \
                keyring = excluded.keyring, stopping = excluded.stopping, busy = excluded.busy, \
                narrowed = excluded.narrowed, isolation = excluded.isolation, waiting = excluded.waiting, \
                running = excluded.running, cpu_usage = excluded.cpu_usage, memory_usage = excluded.memory_usage, \
                disk_usage = excluded.disk_usage, load_average = excluded.load_average, uptime = excluded.uptime, \
                boot_id = excluded.boot_id, refused = excluded.refused, \
                deploys = excluded.deploys",
    );
    BEHIND_ON_KEYRING = same("SELECT h.agent_id, h.keyring FROM heartbeats h JOIN servers s ON s.agent_id = h.agent_id \
            WHERE h.keyring < ? AND h.received_at > ? AND h.stopping = 0 LIMIT ?");
    AHEAD_ON_KEYRING = same("SELECT s.hostname, h.keyring FROM heartbeats h JOIN servers s ON s.agent_id = h.agent_id \
            WHERE h.keyring > ? ORDER BY h.keyring DESC LIMIT ?");
    COUNT_KEYRINGS = same("SELECT h.keyring, COUNT(*) FROM heartbeats h JOIN servers s ON s.agent_id = h.agent_id \
            GROUP BY h.keyring ORDER BY h.keyring");
    SELECT_BEATS = same("SELECT agent_id, start_id, n, deploys FROM heartbeats WHERE agent_id IN ({list})");
    SELECT_BEAT = same("SELECT clock_offset_ms, head, version, features, keyring, stopping, busy, \
            narrowed, isolation, waiting, running, cpu_usage, memory_usage, disk_usage, load_average, uptime, \
            boot_id, refused FROM heartbeats WHERE agent_id = ?");
    DELETE_BEAT = same("DELETE FROM heartbeats WHERE agent_id = ?");
    COUNT_ONLINE = same("SELECT COUNT(*) AS number FROM servers s JOIN heartbeats h ON h.agent_id = s.agent_id \
            WHERE h.received_at > ? AND h.stopping = 0");
}

/// One heartbeat's columns, in the order of the statement.
pub(super) type BeatValues = [Value; 25];

/// Writes heartbeats, in key order.
pub(super) async fn put_heartbeats(tx: &mut Tx, rows: Vec<BeatValues>) -> Result<(), StoreError> {
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        tx.run(UPSERT_HEARTBEATS.query().rows(rows.by_ref().take(BATCH_ROWS_MAX))).await?;
    }
    Ok(())
}

/// An agent's newest heartbeat, as far as the next one is compared with it.
pub(super) struct Kept {
    pub(super) start: StartId,
    pub(super) n: u64,
    /// What it said of deployed paths, summed up.
    pub(super) deploys: String,
}

/// These agents' newest heartbeats.
pub(super) async fn beat_numbers(
    tx: &mut Tx,
    agents: &[AgentId],
) -> Result<HashMap<AgentId, Kept>, StoreError> {
    let mut all = HashMap::new();
    for some in agents.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<(String, String, i64, String)> = tx.all(SELECT_BEATS.query().list(some)).await?;
        for (agent, start, n, deploys) in rows {
            let kept = Kept { start: start.parse().map_err(corrupt)?, n: n.unsigned_abs(), deploys };
            all.insert(agent.parse().map_err(corrupt)?, kept);
        }
    }
    Ok(all)
}

/// Accepted agents heard of since, whose keyring is older than this, with the version that each holds.
pub(super) async fn behind_on_keyring(
    store: &Store,
    version: u64,
    since: Micros,
) -> Result<Vec<(AgentId, u64)>, StoreError> {
    let query = BEHIND_ON_KEYRING.bind(version).bind(since).bind(KEYRING_HOSTS_MAX);
    let rows: Vec<(String, i64)> = store.all(query).await?;
    rows.into_iter()
        .map(|(agent, holds)| Ok((agent.parse().map_err(corrupt)?, holds.unsigned_abs())))
        .collect()
}

/// A few servers whose accepted agents hold a newer keyring than this.
pub(super) async fn ahead_on_keyring(store: &Store, version: u64) -> Result<Vec<(String, u64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        store.all(AHEAD_ON_KEYRING.bind(version).bind(KEYRING_NEWER_SHOWN_MAX)).await?;
    Ok(rows.into_iter().map(|(host, holds)| (host, holds.unsigned_abs())).collect())
}

/// How many servers' accepted agents hold which version of the keyring, by version.
pub(super) async fn count_keyrings(store: &Store) -> Result<Vec<(u64, u64)>, StoreError> {
    let rows: Vec<(i64, i64)> = store.all(COUNT_KEYRINGS.query()).await?;
    Ok(rows.into_iter().map(|(version, hosts)| (version.unsigned_abs(), hosts.unsigned_abs())).collect())
}

/// Everything of an agent's newest heartbeat that is shown.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct BeatRow {
    pub(super) clock_offset_ms: i64,
    pub(super) head: i64,
    pub(super) version: String,
    pub(super) features: String,
    pub(super) keyring: i64,
    pub(super) stopping: i64,
    pub(super) busy: Option<String>,
    pub(super) narrowed: i64,
    pub(super) isolation: String,
    pub(super) waiting: i64,
    pub(super) running: i64,
    pub(super) disk_usage: f64,
    pub(super) load_average: String,
    pub(super) uptime: i64,
    pub(super) boot_id: String,
    pub(super) refused: String,
}

/// An agent's newest heartbeat.
pub(super) async fn beat(store: &Store, id: &AgentId) -> Result<Option<BeatRow>, StoreError> {
    store.first(SELECT_BEAT.bind(id)).await
}

/// Forgets an agent's heartbeat.
pub(super) async fn delete_beat(tx: &mut Tx, id: &AgentId) -> Result<(), StoreError> {
    super::deployments::delete(tx, id).await?;
    tx.run(DELETE_BEAT.bind(id)).await.map(drop)
}

/// How many servers are online.
pub(super) async fn count_online(store: &Store, since: Micros) -> Result<i64, StoreError> {
    let row: Option<(i64,)> = store.first(COUNT_ONLINE.bind(since)).await?;
    Ok(row.map_or(0, |(n,)| n))
}
