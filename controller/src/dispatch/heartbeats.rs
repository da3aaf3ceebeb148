//! Taking in heartbeats: many at a time, the newest of each agent counts.

use std::collections::HashMap;
use std::time::Duration;

use signet_common::AgentId;
use signet_common::bus::{BusError, Consumer, Mode, Queue, Taken};
use signet_common::envelope::{Audience, PayloadType, Refusal};
use signet_common::messages::Heartbeat;
use signet_common::time::Micros;
use tokio_util::sync::CancellationToken;

use super::logs::Hold;
use super::service::Dispatch;
use super::store::{self, LogRow};
use crate::error::{Error, Result};
use crate::limits::{HEARTBEATS_BATCH_MILLISECONDS, HEARTBEATS_PREFETCH};
use crate::store::{Tx, in_transaction};

/// Consumes heartbeats until `stop`.
pub(super) async fn run(dispatch: Dispatch, stop: CancellationToken) {
    loop {
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = consume(&dispatch, &stop) => done,
        };
        if let Err(error) = done {
            tracing::debug!(%error, "intake of heartbeats pauses");
        }
        super::intake::pause(&dispatch, &stop).await;
    }
}

async fn consume(dispatch: &Dispatch, stop: &CancellationToken) -> Result<()> {
    let gone = |e: BusError| Error::Unavailable { message: e.to_string(), retry_after: 1 };
    dispatch.store().ping().await?;
    let bus = dispatch.bus().clone();
    bus.declare(&Queue::Heartbeats).await.map_err(gone)?;
    let mut consumer =
        bus.consume(&Queue::Heartbeats, Mode::SingleActive, HEARTBEATS_PREFETCH).await.map_err(gone)?;
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            first = consumer.next() => first.map_err(gone)?,
        };
        let last_tag = take_batch(dispatch, &mut *consumer, first).await?;
        consumer.ack_through(last_tag).await.map_err(gone)?;
        // A fleet's heartbeats are many and none is urgent: let some gather.
        tokio::time::sleep(Duration::from_millis(HEARTBEATS_BATCH_MILLISECONDS)).await;
    }
}

async fn take_batch(dispatch: &Dispatch, consumer: &mut dyn Consumer, first: Taken) -> Result<u64> {
    let now = Micros::now();
    let mut newest: HashMap<AgentId, Heartbeat> = HashMap::new();
    let mut last_tag = first.tag;
    let mut next = Some(first);
    while let Some(taken) = next {
        last_tag = taken.tag;
        match verify(dispatch, &taken).await? {
            Ok((agent, heartbeat)) => {
                let older = |have: &Heartbeat| have.start_id == heartbeat.start_id && have.n >= heartbeat.n;
                if !newest.get(&agent).is_some_and(older) {
                    newest.insert(agent, heartbeat);
                }
            }
            Err(refusal) => {
                let reason = refusal.label();
                metrics::counter!("signet_refused_total", "what" => "heartbeat", "reason" => reason)
                    .increment(1);
                tracing::debug!(reason, keyid = %taken.envelope.keyid, "a heartbeat was refused");
            }
        }
        next = if newest.len() < usize::from(HEARTBEATS_PREFETCH) { consumer.try_next() } else { None };
    }
    let batch: Vec<(AgentId, Heartbeat)> = newest.into_iter().collect();
    let agents: Vec<AgentId> = batch.iter().map(|(a, _)| a.clone()).collect();
    in_transaction!(dispatch.store(), |tx| -> Result<_> { dispatch.take_heartbeats(tx, &batch, now).await })?;
    let waiting = store::waiting_among(dispatch.store(), &agents).await?;
    dispatch.pump(&waiting, now).await?;
    Ok(last_tag)
}

async fn verify(
    dispatch: &Dispatch,
    taken: &Taken,
) -> Result<std::result::Result<(AgentId, Heartbeat), Refusal>> {
    let known = match taken.envelope.keyid.parse() {
        Ok(id) => dispatch.hosts().known_key(&id).await?,
        Err(_) => None,
    };
    let check = || {
        let authentic = taken.envelope.verify(&[PayloadType::Heartbeat], |_| known.clone())?;
        let verified = authentic.open::<Heartbeat>(&Audience::Controller)?;
        let agent = verified.key().agent_id();
        if verified.get().iss != agent.as_str() {
            return Err(Refusal::Audience);
        }
        Ok((agent, verified.into_inner()))
    };
    Ok(check())
}

impl Dispatch {
    async fn take_heartbeats(&self, tx: &mut Tx, batch: &[(AgentId, Heartbeat)], now: Micros) -> Result<()> {
        let agents: Vec<AgentId> = batch.iter().map(|(a, _)| a.clone()).collect();
        let rows = store::cursors_in(tx, &agents).await?;
        // The start named in the last hello is the newest; older starts' heartbeats are late.
        let current =
            |agent: &AgentId, h: &Heartbeat| rows.get(agent).is_none_or(|r| r.start_id == h.start_id);
        let news: Vec<(AgentId, Heartbeat)> = batch.iter().filter(|(a, h)| current(a, h)).cloned().collect();
        self.hosts().take_heartbeats(tx, &news, now).await?;

        let judged = news.iter().filter_map(|(agent, heartbeat)| {
            let row = rows.get(agent)?;
            judge(row, heartbeat, now)
        });
        let changes: Vec<LogRow> = judged.collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.apply_judgements(tx, &changes).await
    }

    async fn apply_judgements(&self, tx: &mut Tx, changes: &[LogRow]) -> Result<()> {
        let agents: Vec<AgentId> = changes.iter().map(|r| r.agent_id.clone()).collect();
        let mut locked = store::lock_cursors(tx, &agents).await?;
        // Reports may have moved the cursor since it was read; then the next heartbeat judges again.
        let fresh = |r: &&LogRow| {
            locked
                .get(&r.agent_id)
                .is_some_and(|l| l.cursor.seq == r.cursor.seq && l.cursor.log_id == r.cursor.log_id)
        };
        let valid: Vec<LogRow> = changes.iter().filter(fresh).cloned().collect();
        for row in valid {
            if row.cursor.hold == Hold::SetAside {
                tracing::warn!(agent = %row.agent_id, reason = %row.hold_reason, "the host is set aside");
                self.host_gone(tx, &row.agent_id, "rolled back or cloned").await?;
            }
            locked.insert(row.agent_id.clone(), row);
        }
        Ok(store::put_cursors(tx, locked.values()).await?)
    }
}

/// What a heartbeat changes in its agent's row, if anything.
fn judge(row: &LogRow, heartbeat: &Heartbeat, now: Micros) -> Option<LogRow> {
    if row.cursor.hold == Hold::SetAside || row.cursor.log_id != heartbeat.log_id {
        return None;
    }
    let newer_than_reports = heartbeat.start_id == row.start_id && heartbeat.n > row.report_n;
    if heartbeat.head < row.cursor.seq && newer_than_reports && row.cursor.hold == Hold::None {
        let mut aside = row.clone();
        aside.cursor.hold = Hold::SetAside;
        aside.hold_reason = "rolled back: its journal ends before what it had reported".into();
        return Some(aside);
    }
    let caught_up = row.behind_head.is_some_and(|head| row.cursor.seq >= head);
    let (head, since) = match row.behind_head {
        Some(head) if !caught_up => (Some(head), row.behind_since),
        _ if heartbeat.head > row.cursor.seq => (Some(heartbeat.head), Some(now)),
        _ => (None, None),
    };
    (head != row.behind_head || since != row.behind_since).then(|| LogRow {
        behind_head: head,
        behind_since: since,
        ..row.clone()
    })
}
