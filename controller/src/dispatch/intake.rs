//! Taking in reports: verified, in order, many in one transaction, then acknowledged.
//!
//! Intake never gives a report back for its own faults: without a database it stops consuming. Only what fails
//! verification is rejected, to `signet.refused`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::json;
use signet_common::bus::{Consumer, Queue, Taken as FromBus};
use signet_common::chain::Chained;
use signet_common::envelope::{Envelope, Refusal};
use signet_common::fault::{self, Point};
use signet_common::limits::REPORT_EVENTS_MAX;
use signet_common::messages::{Event, Report};
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, TaskId};
use tokio_util::sync::CancellationToken;

use super::inbox::{self, Inbox};
use super::logs::{self, Hold, Taken};
use super::model::Happening;
use super::service::Dispatch;
use super::standing::note_set_aside;
use super::store::{self, LogRow, Orphan, Proof, Stored};
use super::{Happened, What};
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, GAP_EVENTS_MAX, REPORTS_PREFETCH};
use crate::store::{StoreError, Tx, in_transaction};

/// A report whose signature, type and audience are right.
#[derive(Debug, Clone)]
struct Verified {
    agent: AgentId,
    report: Arc<Report>,
    events: Vec<Chained>,
    envelope: Envelope,
}

/// What a report says that was not known before.
struct News<'a> {
    report: &'a Verified,
    events: Vec<Chained>,
}

impl<'a> Proof<'a> {
    fn of(verified: &'a Verified) -> Self {
        Self { agent: &verified.agent, jti: &verified.report.jti, envelope: &verified.envelope }
    }
}

/// Consumes reports until `stop`.
pub(super) async fn run(dispatch: Dispatch, stop: CancellationToken) {
    inbox::run(dispatch.clone(), Reports(dispatch), stop).await;
}

struct Reports(Dispatch);

impl Inbox for Reports {
    const QUEUE: Queue = Queue::Reports;
    const PREFETCH: u16 = REPORTS_PREFETCH;

    async fn take_batch(&mut self, consumer: &mut dyn Consumer, first: FromBus) -> Result<u64> {
        take_batch(&self.0, consumer, first).await
    }

    async fn acknowledged(&self) {
        fault::hit(Point::ControllerAfterIntakeAck);
    }
}

/// Takes what is there, stores it, and says up to which tag it can be acknowledged.
async fn take_batch(dispatch: &Dispatch, consumer: &mut dyn Consumer, first: FromBus) -> Result<u64> {
    let mut batch = Vec::new();
    let (mut bytes, mut last_tag) = (0, first.tag);
    let mut next = Some(first);
    while let Some(taken) = next {
        last_tag = taken.tag;
        match verify(dispatch, &taken).await? {
            Ok(verified) => {
                bytes += verified.envelope.body.len();
                batch.push(verified);
            }
            Err(refusal) => {
                tracing::warn!(reason = refusal.label(), keyid = %taken.envelope.keyid, "a report was refused");
                consumer.reject(taken.tag).await.map_err(|e| Error::Internal(e.to_string()))?;
            }
        }
        let room = batch.len() < BATCH_ROWS_MAX && bytes < BATCH_BYTES_MAX;
        next = if room { consumer.try_next() } else { None };
    }
    fault::hit(Point::ControllerBeforeIntake);
    store_halving(dispatch, batch).await?;
    fault::hit(Point::ControllerAfterIntakeCommit);
    Ok(last_tag)
}

/// The outer error is the database's.
async fn verify(dispatch: &Dispatch, taken: &FromBus) -> Result<std::result::Result<Verified, Refusal>> {
    let (agent, report) = match inbox::verify::<Report>(dispatch, taken).await? {
        Ok(said) => said,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if report.events.len() > REPORT_EVENTS_MAX {
        inbox::refused::<Report>(taken, Refusal::Size);
        return Ok(Err(Refusal::Size));
    }
    let parse = |raw: &serde_json::value::RawValue| Chained::parse(raw.get().to_owned());
    let events: std::result::Result<Vec<Chained>, _> = report.events.iter().map(|e| parse(e)).collect();
    let Ok(events) = events else {
        inbox::refused::<Report>(taken, Refusal::Malformed);
        return Ok(Err(Refusal::Malformed));
    };
    Ok(Ok(Verified { agent, report: Arc::new(report), events, envelope: taken.envelope.clone() }))
}

/// Stores a batch in one transaction. A batch that the database refuses is halved down to the bad report, which is
/// parked and shown.
async fn store_halving(dispatch: &Dispatch, batch: Vec<Verified>) -> Result<()> {
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        let now = Micros::now();
        let done =
            in_transaction!(dispatch.store(), |tx| -> Result<_> { dispatch.take_in(tx, &part, now).await });
        match done {
            Ok(touched) => dispatch.after_intake(touched, now).await?,
            Err(Error::Store(StoreError::Failed(why)) | Error::Internal(why)) if part.len() == 1 => {
                tracing::error!(agent = %part[0].agent, %why, "a report can't be stored; it is parked");
                dispatch.park(&part[0], &why, now).await?;
            }
            Err(Error::Store(StoreError::Failed(_)) | Error::Internal(_)) => {
                // Later reports of an agent follow on earlier ones, so the first half goes first.
                let second = part.split_off(part.len() / 2);
                parts.push(second);
                parts.push(part);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a batch touched, for what comes after its commit.
#[derive(Debug, Default)]
struct Touched {
    tasks: BTreeSet<TaskId>,
    agents: BTreeSet<AgentId>,
    /// A batch was let go.
    released: bool,
}

impl Dispatch {
    async fn after_intake(&self, touched: Touched, now: Micros) -> Result<()> {
        touched.tasks.iter().for_each(|t| self.live().ring(t));
        if touched.released {
            self.wake().notify_one();
        }
        // Each acceptance makes room for what waits.
        let agents: Vec<AgentId> = touched.agents.into_iter().collect();
        let waiting = store::waiting_among(self.store(), &agents).await?;
        self.pump(&waiting, now).await
    }

    /// Everything of a batch that goes into one transaction.
    async fn take_in(&self, tx: &mut Tx, batch: &[Verified], now: Micros) -> Result<Touched> {
        let agents: Vec<AgentId> = batch.iter().map(|v| v.agent.clone()).collect();
        let mut rows = store::lock_cursors(tx, &agents).await?;
        let mut changed: BTreeSet<AgentId> = BTreeSet::new();
        let mut broken: Vec<AgentId> = Vec::new();
        let mut news: Vec<News<'_>> = Vec::new();
        for verified in batch {
            let Some(row) = rows.get_mut(&verified.agent) else { continue };
            match advance(row, verified, now) {
                Step::Nothing => {}
                Step::Broken => broken.push(verified.agent.clone()),
                Step::Events(events) => {
                    if !events.is_empty() {
                        news.push(News { report: verified, events });
                    }
                }
            }
            changed.insert(verified.agent.clone());
        }
        let touched = self.take_events(tx, &rows, news, now).await?;
        for agent in &broken {
            self.host_gone(tx, agent, "rolled back or cloned").await?;
            note_set_aside(tx, agent, "a report does not continue its journal").await?;
        }
        store::put_cursors(tx, rows.values().filter(|r| changed.contains(&r.agent_id))).await?;
        fault::hit(Point::ControllerBeforeIntakeCommit);
        Ok(touched)
    }

    /// Applies new events to their deliveries and gives the slices theirs.
    async fn take_events(
        &self,
        tx: &mut Tx,
        rows: &HashMap<AgentId, LogRow>,
        news: Vec<News<'_>>,
        now: Micros,
    ) -> Result<Touched> {
        let said = |news: &News<'_>| {
            let ids = news.events.iter().filter_map(|e| e.event.jti().cloned());
            ids.map(|jti| (jti, news.report.agent.clone())).collect::<Vec<_>>()
        };
        let pairs: BTreeSet<(Jti, AgentId)> = news.iter().flat_map(said).collect();
        let mut ids: Vec<Jti> = pairs.iter().map(|(jti, _)| jti.clone()).collect();
        ids.dedup();
        let locked = store::lock_by_message(tx, &ids).await?;
        let mut deliveries: BTreeMap<(AgentId, Jti), Stored> = BTreeMap::new();
        for row in store::by_message(tx, &pairs).await? {
            if let (Some(agent), Some(jti)) = (&row.agent_id, &row.jti) {
                deliveries.insert((agent.clone(), jti.clone()), row);
            }
        }

        let mut taken = TakenEvents::default();
        let mut gaps: BTreeMap<AgentId, u64> = BTreeMap::new();
        let mut proofs = Vec::new();
        for News { report, events } in news {
            let agent = &report.agent;
            for event in events {
                if let Event::Gap { from, to, .. } = &event.event {
                    tracing::warn!(%agent, from, to, "events of this host are gone");
                    metrics::counter!("signet_gaps_total").increment(1);
                    let lost = to.saturating_sub(*from).saturating_add(1).min(GAP_EVENTS_MAX);
                    let all: &mut u64 = gaps.entry(agent.clone()).or_default();
                    *all = all.saturating_add(lost).min(GAP_EVENTS_MAX);
                }
                let Some(jti) = event.event.jti().cloned() else { continue };
                match deliveries.get_mut(&(agent.clone(), jti)) {
                    Some(row) => {
                        let live_seq = locked.get(&row.task_id).map_or(row.live_seq, |l| l.live_seq);
                        if taken.one(row, event, now, live_seq) {
                            row.delivery.report = Some(report.report.jti.clone());
                            proofs.push(Proof::of(report));
                        }
                    }
                    // Unknown here, or this host is not in its audience: kept and shown, never believed further.
                    None => taken.orphans.extend(rows.get(agent).map(|r| Orphan {
                        agent_id: agent.clone(),
                        log_id: r.cursor.log_id.clone(),
                        seq: event.seq,
                        event: event.text,
                    })),
                }
            }
        }
        let moved: Vec<Stored> = deliveries
            .into_values()
            .filter(|d| taken.moved.contains(&(d.task_id.clone(), d.ordinal)))
            .collect();
        store::update_deliveries(tx, &moved).await?;
        proofs.dedup_by(|a, b| (a.agent, a.jti) == (b.agent, b.jti));
        store::put_reports(tx, &proofs, now).await?;
        store::put_orphans(tx, &taken.orphans, now).await?;
        // One for a whole batch, however many an agent tells of.
        for (agent, lost) in gaps {
            store::note_gap(tx, &agent, lost, now).await?;
            let note = Note::of(Action::AgentGap, agent.as_str()).new(json!({ "events": lost }));
            audit::note(tx, &Author::agent(&agent), note).await?;
        }
        self.tell(tx, &locked, taken.happened).await?;
        let released = self.settle(tx, &locked, &taken.ended, now).await?;
        let accepted = moved.iter().filter_map(|d| d.agent_id.clone()).collect();
        Ok(Touched { tasks: locked.into_keys().collect(), agents: accepted, released })
    }

    /// Keeps a report that can't be stored, and goes on after it.
    async fn park(&self, verified: &Verified, why: &str, now: Micros) -> Result<()> {
        metrics::counter!("signet_parked_total").increment(1);
        let body = serde_json::to_vec(&*verified.report).map_err(|e| Error::Internal(e.to_string()))?;
        in_transaction!(self.store(), |tx| -> Result<()> {
            let one = std::slice::from_ref(&verified.agent);
            let mut rows = store::lock_cursors(tx, one).await?;
            if let Some(row) = rows.get_mut(&verified.agent) {
                advance(row, verified, now);
            }
            store::put_cursors(tx, rows.values()).await?;
            Ok(store::park(tx, &verified.report.jti, &verified.agent, &body, why, now).await?)
        })
    }
}

/// What came of one batch's events.
#[derive(Debug, Default)]
struct TakenEvents {
    happened: Vec<Happened>,
    orphans: Vec<Orphan>,
    moved: BTreeSet<(TaskId, u64)>,
    ended: BTreeSet<TaskId>,
}

impl TakenEvents {
    /// Applies an event; says whether it is the agent's word on the end.
    fn one(&mut self, row: &mut Stored, event: Chained, now: Micros, live_seq: i64) -> bool {
        let end = matches!(event.event, Event::Result { .. } | Event::Rejected { .. });
        let what = match event.event {
            Event::Accepted { at, .. } => {
                row.apply(&Happening::Accepted(Micros(at)), now, live_seq).then_some(None)
            }
            Event::Started { at, .. } => {
                row.apply(&Happening::Started(Micros(at)), now, live_seq).then_some(None)
            }
            Event::Output { stream, offset, data, .. } => {
                Some((!data.is_empty()).then_some(What::Output { stream, offset, data }))
            }
            Event::Result { at, result, .. } => row
                .apply(&Happening::Result(Micros(at), &result), now, live_seq)
                .then_some(Some(What::Result(result))),
            Event::Rejected { at, reason, detail, .. } => row
                .apply(&Happening::Rejected(Micros(at), reason, &detail), now, live_seq)
                .then(|| Some(What::Refused(row.delivery.reason.clone()))),
            Event::Gap { .. } => None,
        };
        let Some(what) = what else { return false };
        if !matches!(what, Some(What::Output { .. })) {
            self.moved.insert((row.task_id.clone(), row.ordinal));
        }
        if row.delivery.state.is_final() {
            self.ended.insert(row.task_id.clone());
        }
        let happened =
            |what| Happened { task_id: row.task_id.clone(), hostname: row.hostname.clone(), live_seq, what };
        self.happened.extend(what.map(happened));
        end
    }
}

/// What a report means for its agent's row.
enum Step {
    /// Nothing: an old or foreign log, or it starts too far ahead.
    Nothing,
    /// The host was rolled back or cloned; the row says so now.
    Broken,
    /// These are new, and the cursor stands behind them.
    Events(Vec<Chained>),
}

/// Moves a row's cursor over a report's new events.
fn advance(row: &mut LogRow, verified: &Verified, now: Micros) -> Step {
    let report = &verified.report;
    if report.start_id == row.start_id {
        row.report_n = row.report_n.max(report.n);
    }
    // Set aside, or accepted again: what its old log still tells is worth nothing, and must not undo an admin's word.
    let given_up = matches!(row.cursor.hold, Hold::SetAside | Hold::Accepted);
    if row.cursor.log_id != report.log_id || given_up {
        return Step::Nothing;
    }
    match logs::take(&row.cursor, verified.events.clone()) {
        Taken::Ahead => {
            row.behind_head = row.behind_head.or(Some(row.cursor.seq + 1));
            row.behind_since = row.behind_since.or(Some(now));
            Step::Nothing
        }
        Taken::Broken => {
            row.cursor.hold = Hold::SetAside;
            row.hold_reason = "rolled back or cloned: a report does not continue its journal".into();
            Step::Broken
        }
        Taken::New(events) => {
            if let Some(last) = events.last() {
                (row.cursor.seq, row.cursor.chain) = (last.seq, last.chain);
            }
            if row.behind_head.is_some_and(|head| row.cursor.seq >= head) {
                (row.behind_head, row.behind_since) = (None, None);
            }
            if row.cursor.hold == Hold::CatchingUp && row.cursor.seq >= row.catch_up_to {
                row.cursor.hold = Hold::None;
                row.hold_reason.clear();
            }
            Step::Events(events)
        }
    }
}
