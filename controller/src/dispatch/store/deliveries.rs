//! Reading and writing deliveries.

use std::collections::{BTreeSet, HashMap};

use signet_common::ids::BadId;
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, Jti, TaskId};

use super::*;
use crate::dispatch::model::{Delivery, Happening, State, apply};
use crate::limits::{BATCH_ROWS_MAX, RESEND_SECONDS};
use crate::store::{Query, Read, Store, StoreError, Tx, Value, corrupt};
/// A delivery with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The task or job.
    pub task_id: TaskId,
    /// The host.
    pub hostname: Hostname,
    /// Place among the targets, from 1, by hostname.
    pub ordinal: u64,
    /// The host's agent when it was asked for.
    pub agent_id: Option<AgentId>,
    /// The message.
    pub jti: Option<Jti>,
    /// Which batch, from 0.
    pub batch: i64,
    /// When it ends without a word.
    pub deadline_at: Micros,
    /// When it is published next.
    pub send_at: Option<Micros>,
    /// When the cancel is published next.
    pub cancel_send_at: Option<Micros>,
    /// The task's live sequence at its end: the order of finishing.
    pub final_seq: Option<i64>,
    /// The task's live sequence at its last change.
    pub live_seq: i64,
    /// What changes.
    pub delivery: Delivery,
}

impl Stored {
    /// Applies what happened; says whether anything changed.
    pub fn apply(&mut self, happening: &Happening<'_>, now: Micros, live_seq: i64) -> bool {
        let Some(next) = apply(&self.delivery, happening, now) else { return false };
        let asked_now = next.cancel_at.is_some() && self.delivery.cancel_at.is_none();
        self.send_at = match next.state {
            State::Sent if self.delivery.state == State::Waiting => Some(now.plus_seconds(RESEND_SECONDS)),
            State::Sent => self.send_at,
            _ => None,
        };
        self.cancel_send_at = match (next.state.is_final(), asked_now) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => self.cancel_send_at,
        };
        if next.state.is_final() {
            // An end that replaces an inferred one keeps its place only if the old end was never shown as this state.
            self.final_seq = Some(live_seq);
        }
        self.live_seq = live_seq;
        self.delivery = next;
        true
    }
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    task_id: String,
    hostname: String,
    ordinal: i64,
    agent_id: Option<String>,
    jti: Option<String>,
    batch: i64,
    state: String,
    reason: String,
    inferred: i64,
    deadline_at: i64,
    send_at: Option<i64>,
    cancel_at: Option<i64>,
    cancel_send_at: Option<i64>,
    accepted_at: Option<i64>,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    exit_code: Option<i64>,
    term_signal: Option<i64>,
    final_seq: Option<i64>,
    live_seq: i64,
    report: Option<String>,
}

impl TryFrom<DeliveryRow> for Stored {
    type Error = StoreError;
    fn try_from(row: DeliveryRow) -> Result<Self, StoreError> {
        let bad = |e: BadId| corrupt(e);
        let small = |n: Option<i64>| n.and_then(|n| i32::try_from(n).ok());
        Ok(Self {
            task_id: row.task_id.parse().map_err(bad)?,
            hostname: row.hostname.parse().map_err(bad)?,
            ordinal: u64::try_from(row.ordinal).map_err(corrupt)?,
            agent_id: row.agent_id.map(|id| id.parse()).transpose().map_err(bad)?,
            jti: row.jti.map(|id| id.parse()).transpose().map_err(bad)?,
            batch: row.batch,
            deadline_at: Micros(row.deadline_at),
            send_at: row.send_at.map(Micros),
            cancel_send_at: row.cancel_send_at.map(Micros),
            final_seq: row.final_seq,
            live_seq: row.live_seq,
            delivery: Delivery {
                state: row.state.parse().map_err(corrupt)?,
                reason: row.reason,
                inferred: row.inferred != 0,
                cancel_at: row.cancel_at.map(Micros),
                accepted_at: row.accepted_at.map(Micros),
                started_at: row.started_at.map(Micros),
                finished_at: row.finished_at.map(Micros),
                exit_code: small(row.exit_code),
                signal: small(row.term_signal),
                report: row.report.map(|id| id.parse()).transpose().map_err(bad)?,
            },
        })
    }
}

fn stored(rows: Vec<DeliveryRow>) -> Result<Vec<Stored>, StoreError> {
    rows.into_iter().map(Stored::try_from).collect()
}

/// Where to publish what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// The task or job.
    pub task_id: TaskId,
    /// The host.
    pub hostname: Hostname,
    /// The message.
    pub jti: Jti,
    /// The agent.
    pub agent_id: AgentId,
}

#[derive(sqlx::FromRow)]
struct DueRow {
    task_id: String,
    hostname: String,
    jti: String,
    agent_id: String,
}

impl TryFrom<DueRow> for Due {
    type Error = StoreError;
    fn try_from(row: DueRow) -> Result<Self, StoreError> {
        Ok(Self {
            task_id: row.task_id.parse().map_err(corrupt)?,
            hostname: row.hostname.parse().map_err(corrupt)?,
            jti: row.jti.parse().map_err(corrupt)?,
            agent_id: row.agent_id.parse().map_err(corrupt)?,
        })
    }
}

fn due(rows: Vec<DueRow>) -> Result<Vec<Due>, StoreError> {
    rows.into_iter().map(Due::try_from).collect()
}

/// Writes new deliveries.
pub(crate) async fn insert_deliveries(tx: &mut Tx, all: &[Stored]) -> Result<(), StoreError> {
    for some in all.chunks(BATCH_ROWS_MAX) {
        let rows = some.iter().map(|d| -> [Value; 14] {
            [
                (&d.task_id).into(),
                (&d.hostname).into(),
                d.ordinal.into(),
                d.agent_id.as_ref().map(AgentId::as_str).into(),
                d.jti.as_ref().map(Jti::as_str).into(),
                d.batch.into(),
                d.delivery.state.as_str().into(),
                d.delivery.reason.as_str().into(),
                d.delivery.inferred.into(),
                d.deadline_at.into(),
                d.send_at.into(),
                d.delivery.finished_at.into(),
                d.final_seq.into(),
                d.live_seq.into(),
            ]
        });
        tx.run(INSERT_DELIVERIES.query().rows(rows)).await?;
    }
    Ok(())
}

/// Writes what changed of deliveries that exist. The caller holds their dispatches' locks.
pub(crate) async fn update_deliveries(tx: &mut Tx, all: &[Stored]) -> Result<(), StoreError> {
    for some in all.chunks(BATCH_ROWS_MAX) {
        let rows = some.iter().map(|s| -> [Value; 21] {
            let d = &s.delivery;
            [
                (&s.task_id).into(),
                (&s.hostname).into(),
                s.ordinal.into(),
                s.agent_id.as_ref().map(AgentId::as_str).into(),
                s.jti.as_ref().map(Jti::as_str).into(),
                s.batch.into(),
                s.deadline_at.into(),
                d.state.as_str().into(),
                d.reason.as_str().into(),
                d.inferred.into(),
                s.send_at.into(),
                d.cancel_at.into(),
                s.cancel_send_at.into(),
                d.accepted_at.into(),
                d.started_at.into(),
                d.finished_at.into(),
                d.exit_code.into(),
                d.signal.into(),
                s.final_seq.into(),
                s.live_seq.into(),
                d.report.as_ref().map(Jti::as_str).into(),
            ]
        });
        tx.run(UPSERT_DELIVERIES.query().rows(rows)).await?;
    }
    Ok(())
}

/// How many of a task's targets count as failed, in the batches up to this one.
pub(crate) async fn count_failures(tx: &mut Tx, task: &TaskId, batch: i64) -> Result<u64, StoreError> {
    let row: Option<(i64,)> = tx.first(COUNT_FAILURES.bind(task).bind(batch)).await?;
    Ok(row.map_or(0, |(n,)| n.unsigned_abs()))
}

/// Deliveries of messages to agents, each named by both.
pub(crate) async fn by_message(
    tx: &mut Tx,
    pairs: &BTreeSet<(Jti, AgentId)>,
) -> Result<Vec<Stored>, StoreError> {
    let pairs: Vec<_> = pairs.iter().collect();
    let mut all = Vec::new();
    for some in pairs.chunks(BATCH_ROWS_MAX) {
        // The first list is for the index: MariaDB does not look pairs up in one.
        let ids: BTreeSet<&Jti> = some.iter().map(|(jti, _)| jti).collect();
        let rows = some.iter().map(|(jti, agent)| -> [Value; 2] { [jti.into(), agent.into()] });
        all.extend(tx.all::<DeliveryRow>(SELECT_BY_MESSAGE.query().list(ids).rows(rows)).await?);
    }
    stored(all)
}

/// Deliveries by task and host.
pub(crate) async fn at(tx: &mut Tx, places: &[(TaskId, Hostname)]) -> Result<Vec<Stored>, StoreError> {
    let mut all = Vec::new();
    for some in places.chunks(BATCH_ROWS_MAX) {
        let tasks: BTreeSet<&TaskId> = some.iter().map(|(task, _)| task).collect();
        let hosts: BTreeSet<&Hostname> = some.iter().map(|(_, host)| host).collect();
        let rows = some.iter().map(|(task, host)| -> [Value; 2] { [task.into(), host.into()] });
        all.extend(tx.all::<DeliveryRow>(SELECT_AT.query().list(tasks).list(hosts).rows(rows)).await?);
    }
    stored(all)
}

/// A task's deliveries that are open.
pub(crate) async fn open_of_task(tx: &mut Tx, task: &TaskId) -> Result<Vec<Stored>, StoreError> {
    stored(tx.all(SELECT_OPEN_OF_TASK.bind(task)).await?)
}

/// An agent's deliveries that are open, at most `limit`.
pub(crate) async fn open_of_agent(
    tx: &mut Tx,
    agent: &AgentId,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    stored(tx.all(SELECT_OPEN_OF_AGENT.bind(agent).bind(limit as u64)).await?)
}

/// One delivery, outside a transaction.
pub(crate) async fn one_of(
    store: &Store,
    task: &TaskId,
    hostname: &Hostname,
) -> Result<Option<Stored>, StoreError> {
    Ok(stored(store.all(SELECT_TASK_ROW.bind(task).bind(hostname)).await?)?.pop())
}

/// A task's deliveries by hostname, after the one at `ordinal`.
pub(crate) async fn by_task(
    mut read: impl Read,
    task: &TaskId,
    ordinal: u64,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    stored(read.all(SELECT_BY_TASK.bind(task).bind(ordinal).bind(limit as u64)).await?)
}

/// A task's ended deliveries in order of finishing, after this place.
pub(crate) async fn finished(
    store: &Store,
    task: &TaskId,
    (seq, ordinal): (i64, u64),
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let query = SELECT_FINAL.bind(task).bind(seq).bind(seq).bind(ordinal).bind(limit as u64);
    stored(store.all(query).await?)
}

/// A task's deliveries that changed after this place of its live sequence, oldest change first.
pub(crate) async fn changed(
    store: &Store,
    task: &TaskId,
    (seq, ordinal): (i64, u64),
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let query = SELECT_CHANGED.bind(task).bind(seq).bind(seq).bind(ordinal).bind(limit as u64);
    stored(store.all(query).await?)
}

/// How many deliveries of a task are in a state, by reason.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct StateCount {
    /// The task or job.
    pub task_id: String,
    /// The state.
    pub state: String,
    /// How many.
    pub number: i64,
}

/// Counts of many tasks at once.
pub(crate) async fn count_states(
    mut read: impl Read,
    tasks: &[TaskId],
) -> Result<Vec<StateCount>, StoreError> {
    let mut all = Vec::new();
    for some in tasks.chunks(BATCH_ROWS_MAX) {
        all.extend(read.all::<StateCount>(COUNT_STATES.query().list(some)).await?);
    }
    Ok(all)
}

/// A label with a number.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Count {
    /// How many.
    pub number: i64,
    /// Of what.
    pub state: String,
}

/// Open deliveries by state, for the metrics.
pub(crate) async fn count_open(store: &Store) -> Result<Vec<Count>, StoreError> {
    store.all(COUNT_OPEN.query()).await
}

/// How many each agent has that were sent and not accepted.
pub(crate) async fn unaccepted(tx: &mut Tx, agents: &[AgentId]) -> Result<HashMap<AgentId, u64>, StoreError> {
    #[derive(sqlx::FromRow)]
    struct Pair {
        agent_id: String,
        number: i64,
    }
    let mut all = HashMap::new();
    for some in agents.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<Pair> = tx.all(COUNT_UNACCEPTED.query().list(some)).await?;
        for row in rows {
            all.insert(row.agent_id.parse().map_err(corrupt)?, u64::try_from(row.number).unwrap_or(0));
        }
    }
    Ok(all)
}

async fn agents(store: &Store, query: Query) -> Result<Vec<AgentId>, StoreError> {
    let rows: Vec<(String,)> = store.all(query).await?;
    rows.into_iter().map(|(id,)| id.parse().map_err(corrupt)).collect()
}

/// Which of these agents have deliveries that wait.
pub(crate) async fn waiting_among(store: &Store, some: &[AgentId]) -> Result<Vec<AgentId>, StoreError> {
    if some.is_empty() {
        return Ok(Vec::new());
    }
    agents(store, AGENTS_WAITING.query().list(some)).await
}

/// Agents with deliveries that wait, by id, after this one.
pub(crate) async fn all_waiting(
    store: &Store,
    after: &str,
    limit: usize,
) -> Result<Vec<AgentId>, StoreError> {
    agents(store, ALL_AGENTS_WAITING.bind(after).bind(limit as u64)).await
}

/// An agent's oldest deliveries that wait, are released and not overdue.
pub(crate) async fn waiting_of(
    tx: &mut Tx,
    agent: &AgentId,
    now: Micros,
    limit: usize,
) -> Result<Vec<Due>, StoreError> {
    due(tx.all(WAITING_OF_AGENT.bind(agent).bind(now).bind(limit as u64)).await?)
}

/// Deliveries whose publish is due again.
pub(crate) async fn due_sends(store: &Store, now: Micros, limit: usize) -> Result<Vec<Due>, StoreError> {
    due(store.all(DUE.bind(now).bind(limit as u64)).await?)
}

/// Deliveries whose cancel is due.
pub(crate) async fn due_cancels(store: &Store, now: Micros, limit: usize) -> Result<Vec<Due>, StoreError> {
    due(store.all(DUE_CANCELS.bind(now).bind(limit as u64)).await?)
}

fn keys(due: &[Due]) -> impl Iterator<Item = [Value; 2]> {
    due.iter().map(|d| [(&d.task_id).into(), (&d.hostname).into()])
}

/// Sets when these are published next.
pub(crate) async fn mark_sent(tx: &mut Tx, due: &[Due], next: Micros) -> Result<(), StoreError> {
    for some in due.chunks(BATCH_ROWS_MAX) {
        tx.run(MARK_SENT.bind(next).rows(keys(some))).await?;
    }
    Ok(())
}

/// Sets when these cancels are published next.
pub(crate) async fn mark_cancel_sent(tx: &mut Tx, due: &[Due], next: Micros) -> Result<(), StoreError> {
    for some in due.chunks(BATCH_ROWS_MAX) {
        tx.run(MARK_CANCEL_SENT.bind(next).rows(keys(some))).await?;
    }
    Ok(())
}

/// Makes everything that was sent and not accepted due now: the broker may have lost it.
pub(crate) async fn send_all_soon(tx: &mut Tx, now: Micros) -> Result<u64, StoreError> {
    tx.run(SEND_ALL_SOON.bind(now).bind(now)).await
}

/// Open deliveries whose deadline has passed.
pub(crate) async fn overdue(
    store: &Store,
    now: Micros,
    limit: usize,
) -> Result<Vec<(TaskId, Hostname)>, StoreError> {
    let mut all = Vec::new();
    for state in State::OPEN {
        let query = OVERDUE.bind(state.as_str()).bind(now).bind(limit as u64);
        let rows: Vec<(String, String)> = store.all(query).await?;
        for (task, host) in rows {
            all.push((task.parse().map_err(corrupt)?, host.parse().map_err(corrupt)?));
        }
    }
    Ok(all)
}
