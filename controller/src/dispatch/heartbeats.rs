//! Taking in heartbeats: many at a time, the newest of each agent counts.

use std::collections::HashMap;
use std::time::Duration;

use signet_common::AgentId;
use signet_common::bus::{Consumer, Queue, Taken};
use signet_common::messages::Heartbeat;
use signet_common::time::Micros;
use tokio_util::sync::CancellationToken;

use super::inbox::{self, Inbox};
use super::keyrings::Told;
use super::logs::Hold;
use super::service::Dispatch;
use super::standing::note_set_aside;
use super::store::{self, LogRow};
use crate::error::Result;
use crate::limits::{HEARTBEATS_BATCH_MILLISECONDS, HEARTBEATS_PREFETCH};
use crate::store::{Tx, in_transaction};

/// Consumes heartbeats until `stop`.
pub(super) async fn run(dispatch: Dispatch, stop: CancellationToken) {
    let heartbeats = Heartbeats { dispatch: dispatch.clone(), asked: Told::default() };
    inbox::run(dispatch, heartbeats, stop).await;
}

struct Heartbeats {
    dispatch: Dispatch,
    asked: Told,
}

impl Inbox for Heartbeats {
    const QUEUE: Queue = Queue::Heartbeats;
    const PREFETCH: u16 = HEARTBEATS_PREFETCH;

    async fn take_batch(&mut self, consumer: &mut dyn Consumer, first: Taken) -> Result<u64> {
        let now = Micros::now();
        let mut newest: HashMap<AgentId, Heartbeat> = HashMap::new();
        let mut last_tag = first.tag;
        let mut next = Some(first);
        while let Some(taken) = next {
            last_tag = taken.tag;
            if let Ok((agent, heartbeat)) = inbox::verify::<Heartbeat>(&self.dispatch, &taken).await? {
                let older = |have: &Heartbeat| have.start_id == heartbeat.start_id && have.n >= heartbeat.n;
                if !newest.get(&agent).is_some_and(older) {
                    newest.insert(agent, heartbeat);
                }
            }
            next = if newest.len() < usize::from(HEARTBEATS_PREFETCH) { consumer.try_next() } else { None };
        }
        let batch: Vec<(AgentId, Heartbeat)> = newest.into_iter().collect();
        let agents: Vec<AgentId> = batch.iter().map(|(a, _)| a.clone()).collect();
        let strangers = in_transaction!(self.dispatch.store(), |tx| -> Result<Vec<(AgentId, u64)>> {
            self.dispatch.take_heartbeats(tx, &batch, now).await
        })?;
        let ask: Vec<(AgentId, u64)> =
            strangers.into_iter().filter(|(agent, _)| self.asked.may_ask(agent, now)).collect();
        self.dispatch.ask_for_hello(&ask, now)?;
        // The sweep sends it: a large backlog must not keep heartbeats from being heard.
        if !store::waiting_among(self.dispatch.store(), &agents).await?.is_empty() {
            self.dispatch.wake().notify_one();
        }
        Ok(last_tag)
    }

    async fn acknowledged(&self) {
        // A fleet's heartbeats are many and none is urgent: let some gather.
        tokio::time::sleep(Duration::from_millis(HEARTBEATS_BATCH_MILLISECONDS)).await;
    }
}

impl Dispatch {
    /// Takes in heartbeats of the starts that said hello; gives the agents whose start is unknown here, and that may say
    /// hello, with the keyring that each holds.
    async fn take_heartbeats(
        &self,
        tx: &mut Tx,
        batch: &[(AgentId, Heartbeat)],
        now: Micros,
    ) -> Result<Vec<(AgentId, u64)>> {
        let agents: Vec<AgentId> = batch.iter().map(|(a, _)| a.clone()).collect();
        let rows = store::cursors(&mut *tx, &agents).await?;
        // Every start begins with a hello. One that this database doesn't know is over and its word late, or the database
        // was restored and knows only an older one: then the host must introduce itself again.
        let (news, others): (Vec<_>, Vec<_>) = batch
            .iter()
            .cloned()
            .partition(|(agent, h)| rows.get(agent).is_some_and(|r| r.start_id == h.start_id));
        self.hosts().take_heartbeats(tx, &news, now).await?;
        let judged =
            |(agent, h): &&(AgentId, Heartbeat)| rows.get(agent).and_then(|r| judge(r, h, now)).is_some();
        self.judge_locked(tx, news.iter().filter(judged).collect(), now).await?;

        let others: Vec<(AgentId, u64)> = others.into_iter().map(|(agent, h)| (agent, h.keyring)).collect();
        let strangers: Vec<AgentId> = others.iter().map(|(agent, _)| agent.clone()).collect();
        let known = self.hosts().reachable(tx, &strangers).await?;
        let accepted = |id: &AgentId| known.get(id).is_some_and(|a| a.accepted);
        let aside = |id: &AgentId| rows.get(id).is_some_and(|r| r.cursor.hold == Hold::SetAside);
        Ok(others.into_iter().filter(|(id, _)| accepted(id) && !aside(id)).collect())
    }

    /// Judges heartbeats that change their agents' rows, by the rows as they are under their locks: reports and hellos
    /// may have moved them meanwhile.
    async fn judge_locked(&self, tx: &mut Tx, beats: Vec<&(AgentId, Heartbeat)>, now: Micros) -> Result<()> {
        let agents: Vec<AgentId> = beats.iter().map(|(a, _)| a.clone()).collect();
        let locked = store::lock_cursors(tx, &agents).await?;
        let judged = beats.into_iter().filter_map(|(agent, beat)| judge(locked.get(agent)?, beat, now));
        let changed: Vec<LogRow> = judged.collect();
        for row in changed.iter().filter(|r| r.cursor.hold == Hold::SetAside) {
            tracing::warn!(agent = %row.agent_id, reason = %row.hold_reason, "the host is set aside");
            self.host_gone(tx, &row.agent_id, "rolled back or cloned").await?;
            note_set_aside(tx, &row.agent_id, &row.hold_reason).await?;
        }
        Ok(store::put_cursors(tx, &changed).await?)
    }
}

/// What a heartbeat changes in its agent's row, if anything.
fn judge(row: &LogRow, heartbeat: &Heartbeat, now: Micros) -> Option<LogRow> {
    let same_log = row.cursor.log_id == heartbeat.log_id && row.start_id == heartbeat.start_id;
    if row.cursor.hold == Hold::SetAside || !same_log {
        return None;
    }
    if heartbeat.head < row.cursor.seq && heartbeat.n > row.report_n && row.cursor.hold == Hold::None {
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
