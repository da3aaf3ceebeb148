//! Reading what is only shown, and emptying what is no longer needed.

use signet_common::time::Micros;
use signet_common::{AgentId, TaskId};

use super::*;
use crate::store::{Store, StoreError, Tx};

/// A task's live sequence.
pub(crate) async fn live_seq(store: &Store, task: &TaskId) -> Result<i64, StoreError> {
    let row: Option<(i64,)> = store.first(LIVE_SEQ.bind(task)).await?;
    Ok(row.map_or(0, |(seq,)| seq))
}

/// An agent's orphans, after this log and event.
pub(crate) async fn orphans(
    store: &Store,
    agent: &AgentId,
    (log, seq): &(String, i64),
    limit: usize,
) -> Result<Vec<OrphanRow>, StoreError> {
    let query = SELECT_ORPHANS.bind(agent).bind(log.as_str()).bind(log.as_str()).bind(*seq);
    store.all(query.bind(limit as u64)).await
}

/// The last of a page of orphans, if there are more behind it.
pub(crate) async fn orphans_end(
    store: &Store,
    agent: &AgentId,
    (log, seq): &(String, i64),
    limit: usize,
) -> Result<Option<(String, i64)>, StoreError> {
    let query = ORPHANS_END.bind(agent).bind(log.as_str()).bind(log.as_str()).bind(*seq);
    let rows: Vec<(String, i64)> = store.all(query.bind(limit.saturating_sub(1) as u64)).await?;
    Ok(if rows.len() > 1 { rows.into_iter().next() } else { None })
}

/// Empties messages that expired before `now` and whose tasks have ended; says how many.
pub(crate) async fn empty_messages(store: &Store, now: Micros, limit: usize) -> Result<usize, StoreError> {
    let rows: Vec<(String,)> = store.all(SPENT_MESSAGES.bind(now.seconds()).bind(limit as u64)).await?;
    if !rows.is_empty() {
        let mut tx = store.begin().await?;
        tx.run(EMPTY_MESSAGES.query().list(rows.iter().map(|(jti,)| jti.as_str()))).await?;
        tx.commit().await?;
    }
    Ok(rows.len())
}

/// Adds to the events that an agent lost; its log is locked already.
pub(crate) async fn note_gap(
    tx: &mut Tx,
    agent: &AgentId,
    events: u64,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(NOTE_GAP.bind(events).bind(now).bind(agent)).await.map(drop)
}

/// How many events an agent lost, and when it last said so; nothing when it lost none.
pub(crate) async fn gaps(store: &Store, agent: &AgentId) -> Result<Option<(i64, Micros)>, StoreError> {
    let row: Option<(i64, i64)> = store.first(SELECT_GAPS.bind(agent)).await?;
    Ok(row.map(|(events, at)| (events, Micros(at))))
}
