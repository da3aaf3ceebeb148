//! Reading and writing dispatches and messages.

use std::collections::{HashMap, HashSet};

use signet_common::envelope::Envelope;
use signet_common::time::Micros;
use signet_common::{Jti, TaskId};

use super::*;
use crate::dispatch::rolling::Rolling;
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, LIST_VALUES_MAX};
use crate::store::{Read, Statement, Store, StoreError, Tx, Value, corrupt};

/// The `released_batch` of a task that awaits approval: nothing of it may be sent, and it has no messages yet.
pub(crate) const HELD: i64 = -1;
/// The `released_batch` of a task that begins.
pub(crate) const FIRST_BATCH: i64 = 0;

/// What a task's deliveries share.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Dispatch {
    /// The task or job.
    pub task_id: String,
    /// `command` or `deploy`.
    pub kind: String,
    /// Failures above which nothing more is released.
    pub max_failures: Option<i64>,
    /// Hosts of the first batch, if that is a canary; else 0.
    pub canary: i64,
    /// Seconds between batches.
    pub pause: i64,
    /// When the next batch may go, while there is a pause.
    pub next_at: Option<i64>,
    /// Batches up to this one may be sent; [`HELD`] while it awaits approval.
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

impl Dispatch {
    /// Whether it awaits approval, or ended while it did.
    pub(crate) fn is_held(&self) -> bool {
        self.released_batch == HELD
    }
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

#[derive(sqlx::FromRow)]
pub(super) struct MessageRow {
    jti: String,
    payload_type: String,
    keyid: String,
    sig: String,
    body: Vec<u8>,
    exp: i64,
}

impl TryFrom<MessageRow> for Message {
    type Error = StoreError;
    fn try_from(row: MessageRow) -> Result<Self, StoreError> {
        let MessageRow { jti, payload_type, keyid, sig, body, exp } = row;
        let envelope = Envelope { payload_type, keyid, sig, body: body.into() };
        Ok(Self { jti: jti.parse().map_err(corrupt)?, envelope, exp })
    }
}

/// What a task's deliveries share, when it is made.
pub(crate) struct NewDispatch<'a> {
    pub(crate) task: &'a TaskId,
    pub(crate) kind: &'a str,
    pub(crate) now: Micros,
    pub(crate) timeout: u32,
    pub(crate) rolling: Rolling,
    pub(crate) released_batch: i64,
    pub(crate) last_batch: i64,
    pub(crate) open: bool,
}

/// Writes what a task's deliveries share.
pub(crate) async fn insert_dispatch(tx: &mut Tx, new: &NewDispatch<'_>) -> Result<(), StoreError> {
    let query = INSERT_DISPATCH.bind(new.task).bind(new.kind).bind(new.now).bind(new.timeout);
    let rolling = new.rolling;
    let query = query.bind(rolling.max_failures).bind(rolling.canary as u64).bind(rolling.pause);
    tx.run(query.bind(new.released_batch).bind(new.last_batch).bind(new.open)).await.map(drop)
}

/// `messages.kept` of a body that is emptied once nobody may start it any more: it may hold secrets.
const KEPT_UNTIL_SPENT: i64 = 1;
/// `messages.kept` of a body that stays as long as its task, to prove what was asked.
pub(super) const KEPT: i64 = 2;

/// Writes signed messages.
pub(crate) async fn insert_messages(
    tx: &mut Tx,
    task: &TaskId,
    messages: &[Message],
    secret: bool,
) -> Result<(), StoreError> {
    let kept = if secret { KEPT_UNTIL_SPENT } else { KEPT };
    let mut rest = messages;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |m: &&Message| {
            bytes += m.envelope.body.len();
            bytes <= BATCH_BYTES_MAX
        };
        // Each alone would fit.
        let count = rest.iter().take(BATCH_ROWS_MAX).take_while(fits).count().max(1);
        let some;
        (some, rest) = rest.split_at(count);
        let rows = some.iter().map(|m| -> [Value; 8] {
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
                kept.into(),
            ]
        });
        tx.run(INSERT_MESSAGES.query().rows(rows)).await?;
    }
    Ok(())
}

/// What these tasks' deliveries share, with their next live sequence. Locked against every other writer until the end of
/// the transaction, in key order; [`settle`] has to follow.
pub(crate) async fn lock_dispatches(
    tx: &mut Tx,
    tasks: impl IntoIterator<Item = &TaskId>,
) -> Result<HashMap<TaskId, Dispatch>, StoreError> {
    let mut tasks: Vec<TaskId> = tasks.into_iter().cloned().collect();
    tasks.sort();
    tasks.dedup();
    Ok(next(read(tx, LOCK_DISPATCHES, &tasks).await?))
}

/// [`lock_dispatches`] of the tasks that these messages belong to, in the order of the messages: nearly that of the
/// tasks, and where it is not, a transaction may have to be tried again.
pub(crate) async fn lock_by_message(
    tx: &mut Tx,
    messages: &[Jti],
) -> Result<HashMap<TaskId, Dispatch>, StoreError> {
    Ok(next(read(tx, LOCK_BY_MESSAGE, messages).await?))
}

/// What these tasks' deliveries share, without locking them.
pub(crate) async fn dispatches(
    tx: &mut Tx,
    tasks: &[TaskId],
) -> Result<HashMap<TaskId, Dispatch>, StoreError> {
    read(tx, SELECT_DISPATCHES, tasks).await
}

async fn read<Id>(tx: &mut Tx, by: Statement, ids: &[Id]) -> Result<HashMap<TaskId, Dispatch>, StoreError>
where
    for<'a> &'a Id: Into<Value>,
{
    let mut all = HashMap::new();
    for some in ids.chunks(LIST_VALUES_MAX) {
        let rows: Vec<Dispatch> = tx.all(by.query().list(some)).await?;
        for row in rows {
            all.insert(row.task_id.parse().map_err(corrupt)?, row);
        }
    }
    Ok(all)
}

/// What is written under the lock belongs to the next live sequence.
fn next(mut locked: HashMap<TaskId, Dispatch>) -> HashMap<TaskId, Dispatch> {
    locked.values_mut().for_each(|dispatch| dispatch.live_seq += 1);
    locked
}

/// Writes the live sequences that came with the locks, and which of these tasks have nothing open any more.
pub(crate) async fn settle(tx: &mut Tx, locked: &HashMap<TaskId, Dispatch>) -> Result<(), StoreError> {
    let mut tasks: Vec<&TaskId> = locked.keys().collect();
    tasks.sort();
    for some in tasks.chunks(LIST_VALUES_MAX) {
        tx.run(SETTLE.query().list(some.iter().copied())).await?;
    }
    Ok(())
}

/// Lets the batches up to `batch` go.
pub(crate) async fn set_released(tx: &mut Tx, task: &TaskId, batch: i64) -> Result<(), StoreError> {
    tx.run(SET_RELEASED.bind(batch).bind(task)).await.map(drop)
}

/// Lets nothing more go before this.
pub(crate) async fn set_next(tx: &mut Tx, task: &TaskId, at: Micros) -> Result<(), StoreError> {
    tx.run(SET_NEXT.bind(at).bind(task)).await.map(drop)
}

/// Hosts of a task's first batch that ended and did not succeed.
pub(crate) async fn canaries_failed(tx: &mut Tx, task: &TaskId) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = tx.all(CANARIES_FAILED.bind(task)).await?;
    Ok(rows.into_iter().map(|(host,)| host).collect())
}

/// Which of these tasks await approval.
pub(crate) async fn held(mut read: impl Read, tasks: &[TaskId]) -> Result<HashSet<TaskId>, StoreError> {
    let mut all = HashSet::new();
    for some in tasks.chunks(LIST_VALUES_MAX) {
        let rows: Vec<(String,)> = read.all(SELECT_HELD.query().list(some)).await?;
        for (id,) in rows {
            all.insert(id.parse().map_err(corrupt)?);
        }
    }
    Ok(all)
}

/// Sets when the open deliveries of a task end without a word.
pub(crate) async fn set_deadline(tx: &mut Tx, task: &TaskId, at: Micros) -> Result<(), StoreError> {
    tx.run(SET_DEADLINE.bind(at).bind(task)).await.map(drop)
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
    let mut all = HashMap::new();
    for some in ids.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<MessageRow> = store.all(SELECT_MESSAGES.query().list(some)).await?;
        for row in rows {
            let message = Message::try_from(row)?;
            all.insert(message.jti.clone(), message);
        }
    }
    Ok(all)
}

/// Replaces a message's signature by a newer key's; its bytes stay.
pub(crate) async fn update_signature(tx: &mut Tx, message: &Message, old: &str) -> Result<bool, StoreError> {
    let e = &message.envelope;
    let query = UPDATE_SIGNATURE.bind(e.keyid.as_str()).bind(e.sig.as_str()).bind(&message.jti).bind(old);
    Ok(tx.run(query).await? > 0)
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
