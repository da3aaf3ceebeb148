//! Reading and writing dispatches and messages.

use std::collections::HashMap;

use signet_common::envelope::Envelope;
use signet_common::time::Micros;
use signet_common::{Jti, TaskId};

use super::*;
use crate::limits::{BATCH_ROWS_MAX, LIST_VALUES_MAX};
use crate::store::{Store, StoreError, Tx, Value, corrupt};

/// What a task's deliveries share.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Dispatch {
    /// The task or job.
    pub task_id: String,
    /// `command` or `deploy`.
    pub kind: String,
    /// Failures above which nothing more is released.
    pub max_failures: Option<i64>,
    /// Batches up to this one may be sent.
    pub released_batch: i64,
    /// The last batch.
    pub last_batch: i64,
    /// 1 while a delivery is open.
    pub open: i64,
    /// Grows with every change.
    pub live_seq: i64,
    /// The `timeout`, in seconds.
    pub timeout: i64,
}

/// A message as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// Its id.
    pub jti: Jti,
    /// As signed.
    pub envelope: Envelope,
    /// The last second in which it may start.
    pub exp: i64,
}

/// What a task's deliveries share, when it is made.
pub(crate) struct NewDispatch<'a> {
    pub(crate) task: &'a TaskId,
    pub(crate) kind: &'a str,
    pub(crate) now: Micros,
    pub(crate) timeout: u32,
    pub(crate) max_failures: Option<u32>,
    pub(crate) last_batch: i64,
    pub(crate) open: bool,
}

/// Writes what a task's deliveries share.
pub(crate) async fn insert_dispatch(tx: &mut Tx, new: &NewDispatch<'_>) -> Result<(), StoreError> {
    let query = INSERT_DISPATCH.bind(new.task).bind(new.kind).bind(new.now).bind(new.timeout);
    tx.run(query.bind(new.max_failures).bind(new.last_batch).bind(new.open)).await.map(drop)
}

/// Writes signed messages.
pub(crate) async fn insert_messages(
    tx: &mut Tx,
    task: &TaskId,
    messages: &[Message],
) -> Result<(), StoreError> {
    // A message can be large, so that a statement holds few.
    for some in messages.chunks(8) {
        let rows = some.iter().map(|m| -> [Value; 7] {
            let e = &m.envelope;
            let text = |t: &String| Value::from(t.as_str());
            [
                (&m.jti).into(),
                task.into(),
                text(&e.payload_type),
                text(&e.keyid),
                text(&e.sig),
                e.body.as_ref().into(),
                m.exp.into(),
            ]
        });
        tx.run(INSERT_MESSAGES.query().rows(rows)).await?;
    }
    Ok(())
}

/// Locks these tasks' deliveries against every other writer until the end of the transaction, and gives their next
/// live sequence. Locks are taken in key order.
pub(crate) async fn lock_dispatches(
    tx: &mut Tx,
    tasks: impl IntoIterator<Item = &TaskId>,
) -> Result<HashMap<TaskId, Dispatch>, StoreError> {
    let mut tasks: Vec<&TaskId> = tasks.into_iter().collect();
    tasks.sort();
    tasks.dedup();
    for some in tasks.chunks(LIST_VALUES_MAX) {
        tx.run(LOCK_DISPATCHES.query().list(some.iter().copied())).await?;
    }
    read(tx, &tasks).await
}

/// What these tasks' deliveries share, without locking them.
pub(crate) async fn dispatches(
    tx: &mut Tx,
    tasks: &[TaskId],
) -> Result<HashMap<TaskId, Dispatch>, StoreError> {
    read(tx, &tasks.iter().collect::<Vec<_>>()).await
}

async fn read(tx: &mut Tx, tasks: &[&TaskId]) -> Result<HashMap<TaskId, Dispatch>, StoreError> {
    let mut all = HashMap::new();
    for some in tasks.chunks(LIST_VALUES_MAX) {
        let rows: Vec<Dispatch> = tx.all(SELECT_DISPATCHES.query().list(some.iter().copied())).await?;
        for row in rows {
            all.insert(row.task_id.parse().map_err(corrupt)?, row);
        }
    }
    Ok(all)
}

/// Lets the batches up to `batch` go.
pub(crate) async fn set_released(tx: &mut Tx, task: &TaskId, batch: i64) -> Result<(), StoreError> {
    tx.run(SET_RELEASED.bind(batch).bind(task)).await.map(drop)
}

/// Notes of each of these tasks that nothing of it is open, if so. The caller holds their locks.
pub(crate) async fn close_tasks(
    tx: &mut Tx,
    tasks: impl IntoIterator<Item = &TaskId>,
) -> Result<(), StoreError> {
    let tasks: Vec<&TaskId> = tasks.into_iter().collect();
    for some in tasks.chunks(LIST_VALUES_MAX) {
        tx.run(CLOSE_TASKS.query().list(some.iter().copied())).await?;
    }
    Ok(())
}

/// Which tasks these messages belong to.
pub(crate) async fn tasks_of(tx: &mut Tx, messages: &[Jti]) -> Result<HashMap<Jti, TaskId>, StoreError> {
    #[derive(sqlx::FromRow)]
    struct Pair {
        jti: String,
        task_id: String,
    }
    let mut all = HashMap::new();
    for some in messages.chunks(LIST_VALUES_MAX) {
        let rows: Vec<Pair> = tx.all(SELECT_TASKS_OF_MESSAGES.query().list(some)).await?;
        for pair in rows {
            all.insert(pair.jti.parse().map_err(corrupt)?, pair.task_id.parse().map_err(corrupt)?);
        }
    }
    Ok(all)
}

/// Tasks with batches that were not released, by id, after this one.
pub(crate) async fn open_batched(
    store: &Store,
    after: &str,
    limit: usize,
) -> Result<Vec<TaskId>, StoreError> {
    let rows: Vec<(String,)> = store.all(OPEN_BATCHED.bind(after).bind(limit as u64)).await?;
    rows.into_iter().map(|(id,)| id.parse().map_err(corrupt)).collect()
}

/// Signed messages by id.
pub(crate) async fn messages(store: &Store, ids: &[Jti]) -> Result<HashMap<Jti, Message>, StoreError> {
    #[derive(sqlx::FromRow)]
    struct MessageRow {
        jti: String,
        payload_type: String,
        keyid: String,
        sig: String,
        body: Vec<u8>,
        exp: i64,
    }
    let mut all = HashMap::new();
    for some in ids.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<MessageRow> = store.all(SELECT_MESSAGES.query().list(some)).await?;
        for row in rows {
            let jti: Jti = row.jti.parse().map_err(corrupt)?;
            let envelope = Envelope {
                payload_type: row.payload_type,
                keyid: row.keyid,
                sig: row.sig,
                body: row.body.into(),
            };
            all.insert(jti.clone(), Message { jti, envelope, exp: row.exp });
        }
    }
    Ok(all)
}

/// Replaces a message's signature by a newer key's; its bytes stay.
pub(crate) async fn update_signature(tx: &mut Tx, message: &Message) -> Result<(), StoreError> {
    let e = &message.envelope;
    tx.run(UPDATE_SIGNATURE.bind(e.keyid.as_str()).bind(e.sig.as_str()).bind(&message.jti)).await.map(drop)
}

/// Ended tasks from before `before`, oldest first.
pub(crate) async fn old_dispatches(
    store: &Store,
    before: Micros,
    limit: usize,
) -> Result<Vec<TaskId>, StoreError> {
    let rows: Vec<(String,)> = store.all(OLD_DISPATCHES.bind(before).bind(limit as u64)).await?;
    rows.into_iter().map(|(id,)| id.parse().map_err(corrupt)).collect()
}

/// Forgets tasks' deliveries and messages.
pub(crate) async fn delete(tx: &mut Tx, tasks: &[TaskId]) -> Result<(), StoreError> {
    for statement in [DELETE_DELIVERIES, DELETE_MESSAGES, DELETE_DISPATCHES] {
        tx.run(statement.query().list(tasks)).await?;
    }
    Ok(())
}
