//! Reading and writing cursors, orphans, parked reports and settings.

use std::collections::HashMap;

use signet_common::chain::ChainHash;
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, LogId, StartId};

use super::*;
use crate::dispatch::gate::{KEYRING_OLD, PAUSED};
use crate::dispatch::logs::{Cursor, Hold};
use crate::limits::BATCH_ROWS_MAX;
use crate::store::{Read, Store, StoreError, Tx, Value, corrupt};

/// An agent's row: its cursor and what liveness needs beside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogRow {
    /// The agent.
    pub agent_id: AgentId,
    /// How far its log was taken in.
    pub cursor: Cursor,
    /// Why it is held.
    pub hold_reason: String,
    /// With [`Hold::CatchingUp`]: dispatch waits until the cursor is here.
    pub catch_up_to: u64,
    /// The start named in its last hello.
    pub start_id: StartId,
    /// The highest number of a report of that start.
    pub report_n: u64,
    /// A head above the cursor that a heartbeat told …
    pub behind_head: Option<u64>,
    /// … at this time.
    pub behind_since: Option<Micros>,
}

#[derive(sqlx::FromRow)]
struct Raw {
    agent_id: String,
    log_id: String,
    seq: i64,
    chain: String,
    hold: String,
    hold_reason: String,
    catch_up_to: i64,
    start_id: String,
    report_n: i64,
    behind_head: Option<i64>,
    behind_since: Option<i64>,
}

impl TryFrom<Raw> for LogRow {
    type Error = StoreError;
    fn try_from(row: Raw) -> Result<Self, StoreError> {
        Ok(Self {
            agent_id: row.agent_id.parse().map_err(corrupt)?,
            cursor: Cursor {
                log_id: row.log_id.parse().map_err(corrupt)?,
                seq: u64::try_from(row.seq).map_err(corrupt)?,
                chain: row.chain.parse::<ChainHash>().map_err(corrupt)?,
                hold: Hold::parse(&row.hold),
            },
            hold_reason: row.hold_reason,
            catch_up_to: u64::try_from(row.catch_up_to).map_err(corrupt)?,
            start_id: row.start_id.parse().map_err(corrupt)?,
            report_n: u64::try_from(row.report_n).map_err(corrupt)?,
            behind_head: row.behind_head.and_then(|n| u64::try_from(n).ok()),
            behind_since: row.behind_since.map(Micros),
        })
    }
}

fn by_agent(rows: Vec<Raw>) -> Result<HashMap<AgentId, LogRow>, StoreError> {
    rows.into_iter().map(LogRow::try_from).map(|r| r.map(|r| (r.agent_id.clone(), r))).collect()
}

/// These agents' rows, without locking them.
pub(crate) async fn cursors(
    mut read: impl Read,
    agents: &[AgentId],
) -> Result<HashMap<AgentId, LogRow>, StoreError> {
    let mut all = HashMap::new();
    for some in agents.chunks(BATCH_ROWS_MAX) {
        all.extend(by_agent(read.all(SELECT_CURSORS.query().list(some)).await?)?);
    }
    Ok(all)
}

/// Reads these agents' rows and locks them until the end of the transaction, in key order: the compare-and-set of the
/// cursor. A locking read gives what was committed last; on SQLite the transaction itself is the lock.
pub(crate) async fn lock_cursors(
    tx: &mut Tx,
    agents: &[AgentId],
) -> Result<HashMap<AgentId, LogRow>, StoreError> {
    let mut sorted: Vec<&AgentId> = agents.iter().collect();
    sorted.sort();
    sorted.dedup();
    if sorted.is_empty() {
        return Ok(HashMap::new());
    }
    by_agent(tx.all(LOCK_CURSORS.query().list(sorted)).await?)
}

/// Writes rows.
pub(crate) async fn put_cursors<'a>(
    tx: &mut Tx,
    rows: impl IntoIterator<Item = &'a LogRow>,
) -> Result<(), StoreError> {
    let mut rows: Vec<&LogRow> = rows.into_iter().collect();
    rows.sort_by(|a, b| a.agent_id.cmp(&b.agent_id));
    for some in rows.chunks(BATCH_ROWS_MAX) {
        let values = some.iter().map(|r| -> [Value; 11] {
            [
                (&r.agent_id).into(),
                (&r.cursor.log_id).into(),
                r.cursor.seq.into(),
                r.cursor.chain.into(),
                r.cursor.hold.as_str().into(),
                r.hold_reason.as_str().into(),
                r.catch_up_to.into(),
                (&r.start_id).into(),
                r.report_n.into(),
                r.behind_head.into(),
                r.behind_since.into(),
            ]
        });
        tx.run(UPSERT_CURSORS.query().rows(values)).await?;
    }
    Ok(())
}

/// Agents to be told to report again: behind since before `since` and not told since `told`, or accepted by an admin.
pub(crate) async fn behind(
    store: &Store,
    since: Micros,
    told: Micros,
    limit: usize,
) -> Result<Vec<LogRow>, StoreError> {
    let mut rows: Vec<Raw> = store.all(BEHIND.bind(since).bind(told).bind(limit as u64)).await?;
    rows.extend(store.all::<Raw>(ACCEPTED_AGAIN.bind(told).bind(limit as u64)).await?);
    rows.into_iter().map(LogRow::try_from).collect()
}

/// Notes that these were told, or looked at and not there.
pub(crate) async fn mark_resumed(tx: &mut Tx, agents: &[&AgentId], now: Micros) -> Result<(), StoreError> {
    let mut agents = agents.to_vec();
    agents.sort();
    tx.run(MARK_RESUMED.bind(now).list(agents)).await.map(drop)
}

/// Ends what holds dispatch to an agent, or makes it report again: its key counts no more.
pub(crate) async fn clear_standing(tx: &mut Tx, agent: &AgentId) -> Result<(), StoreError> {
    tx.run(CLEAR_STANDING.bind(agent)).await.map(drop)
}

/// Whether the agent had this log before its current one.
pub(crate) async fn is_past_log(tx: &mut Tx, agent: &AgentId, log: &LogId) -> Result<bool, StoreError> {
    let row: Option<(String,)> = tx.first(PAST_LOG.bind(agent).bind(log)).await?;
    Ok(row.is_some())
}

/// Notes that the agent gave this log up.
pub(crate) async fn put_past_log(tx: &mut Tx, agent: &AgentId, log: &LogId) -> Result<(), StoreError> {
    tx.run(INSERT_PAST_LOG.bind(agent).bind(log)).await.map(drop)
}

/// An event about a message that this database does not know.
#[derive(Debug, Clone)]
pub(crate) struct Orphan {
    /// Whose.
    pub agent_id: AgentId,
    /// In which log.
    pub log_id: LogId,
    /// Its number there.
    pub seq: u64,
    /// Its exact text.
    pub event: String,
}

/// Keeps orphans.
pub(crate) async fn put_orphans(tx: &mut Tx, orphans: &[Orphan], now: Micros) -> Result<(), StoreError> {
    for some in orphans.chunks(8) {
        let rows = some.iter().map(|o| -> [Value; 5] {
            [(&o.agent_id).into(), (&o.log_id).into(), o.seq.into(), o.event.as_bytes().into(), now.into()]
        });
        tx.run(INSERT_ORPHANS.query().rows(rows)).await?;
    }
    Ok(())
}

/// An orphan as it is shown.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct OrphanRow {
    /// Whose.
    pub agent_id: String,
    /// In which log.
    pub log_id: String,
    /// Its number there.
    pub seq: i64,
    /// Its exact text.
    pub event: Vec<u8>,
    /// When it came.
    pub received_at: i64,
}

/// Deletes some orphans from before `before`; says how many.
pub(crate) async fn delete_old_orphans(
    store: &Store,
    before: Micros,
    limit: usize,
) -> Result<usize, StoreError> {
    let rows: Vec<(String, String, i64)> = store.all(OLD_ORPHANS.bind(before).bind(limit as u64)).await?;
    let mut tx = store.begin().await?;
    for (agent, log, seq) in &rows {
        tx.run(DELETE_ORPHAN.bind(agent.as_str()).bind(log.as_str()).bind(*seq)).await?;
    }
    tx.commit().await?;
    Ok(rows.len())
}

/// Keeps a report that could not be stored.
pub(crate) async fn park(
    tx: &mut Tx,
    jti: &Jti,
    agent: &AgentId,
    body: &[u8],
    error: &str,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(INSERT_PARKED.bind(jti).bind(agent).bind(body).bind(error).bind(now)).await.map(drop)
}

/// How many reports are parked.
pub(crate) async fn count_parked(store: &Store) -> Result<i64, StoreError> {
    let row: Option<(i64,)> = store.first(COUNT_PARKED.query()).await?;
    Ok(row.map_or(0, |(n,)| n))
}

/// Reads a switch of the installation.
pub(crate) async fn setting(store: &Store, name: &str) -> Result<Option<String>, StoreError> {
    let row: Option<(String,)> = store.first(SELECT_SETTING.bind(name)).await?;
    Ok(row.map(|(v,)| v))
}

/// What holds dispatch, and the newest keyring's version.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct GateRow {
    pub(crate) paused: String,
    pub(crate) keyring_old: String,
    keyring: i64,
}

impl GateRow {
    pub(crate) fn keyring(&self) -> u64 {
        self.keyring.unsigned_abs()
    }
}

/// Reads what holds dispatch, and the newest keyring's version, in the transaction that sends.
pub(crate) async fn gate(tx: &mut Tx) -> Result<GateRow, StoreError> {
    let row = tx.first(GATE.bind(PAUSED).bind(KEYRING_OLD)).await?;
    row.ok_or_else(|| StoreError::Failed("the database gave no row".into()))
}

/// Sets a switch.
pub(crate) async fn put_setting(tx: &mut Tx, name: &str, value: &str, now: Micros) -> Result<(), StoreError> {
    tx.run(UPSERT_SETTING.bind(name).bind(value).bind(now)).await.map(drop)
}
