//! The sweep: compares what the rows want with what the agents last said, and acts on the difference.
//!
//! One controller sweeps at a time. Every step is bounded, idempotent, and harmless if it is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use signet_common::bus::{Health, Queue};
use signet_common::envelope::{Envelope, PayloadType};
use signet_common::messages::{Cancel, Resume};
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, TaskId};
use tokio_util::sync::CancellationToken;

use super::leases::Lease;
use super::logs::Hold;
use super::model::Happening;
use super::outbox::Publish;
use super::service::Dispatch;
use super::store::{self, Due};
use crate::error::{Error, Result};
use crate::limits::{
    BEHIND_SECONDS, RESEND_SECONDS, RESUMES_MAX, SWEEP_MILLISECONDS, SWEEP_ROWS_MAX, UNACCEPTED_MAX,
};
use crate::store::in_transaction;

/// `exp` of a cancel and a resume that is derived when it is sent, in seconds after its `iat`.
const DERIVED_EXPIRY_SECONDS: i64 = 60;

/// Sweeps until `stop`.
pub(super) async fn run(dispatch: Dispatch, stop: CancellationToken) {
    let lease = Lease::new(dispatch.store().clone(), "reconciler");
    let mut health = dispatch.bus().health();
    let mut was = Health::Down;
    loop {
        if let Err(error) = turn(&dispatch, &lease, &mut was).await {
            tracing::warn!(%error, "the sweep failed; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = dispatch.wake().notified() => {}
            _ = health.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(SWEEP_MILLISECONDS)) => {}
        }
    }
    lease.release().await;
}

async fn turn(dispatch: &Dispatch, lease: &Lease, was: &mut Health) -> Result<()> {
    let now = Micros::now();
    let is = *dispatch.bus().health().borrow();
    if is == Health::Up && *was != Health::Up {
        // The broker may have come back empty.
        for queue in [Queue::Reports, Queue::Heartbeats] {
            dispatch.bus().declare(&queue).await.map_err(unavailable)?;
        }
        in_transaction!(dispatch.store(), |tx| -> Result<u64> { Ok(store::send_all_soon(tx, now).await?) })?;
    }
    *was = is;
    if !lease.take().await? {
        return Ok(());
    }
    dispatch.end_overdue(now).await?;
    dispatch.release_batches(now).await?;
    if is != Health::Up {
        return Ok(());
    }
    dispatch.send_cancels(now).await?;
    dispatch.send_resumes(now).await?;
    dispatch.resend(now).await?;
    dispatch.pump_all(now).await
}

fn unavailable(error: signet_common::bus::BusError) -> Error {
    Error::Unavailable { message: error.to_string(), retry_after: 1 }
}

impl Dispatch {
    /// Ends what is past its deadline.
    async fn end_overdue(&self, now: Micros) -> Result<()> {
        let overdue = store::overdue(self.store(), now, SWEEP_ROWS_MAX).await?;
        let mut by_task: BTreeMap<TaskId, Vec<_>> = BTreeMap::new();
        for (task, host) in overdue {
            by_task.entry(task).or_default().push(host);
        }
        for (task, hosts) in by_task {
            in_transaction!(self.store(), |tx| -> Result<()> {
                let locked = store::lock_dispatches(tx, [&task]).await?;
                for host in &hosts {
                    let Some(one) = store::one(tx, &task, host).await? else { continue };
                    let agents: Vec<AgentId> = one.agent_id.iter().cloned().collect();
                    let known = self.hosts().reachable(tx, &agents).await?;
                    let heard = agents.first().and_then(|id| known.get(id)?.last_heartbeat);
                    let heard = heard.map_or_else(|| "it was asked for".to_owned(), Micros::rfc3339);
                    self.apply_locked(tx, &locked, vec![one], &Happening::Deadline(&heard), now).await?;
                }
                Ok(())
            })?;
            self.live().ring(&task);
        }
        Ok(())
    }

    /// Looks at every task with batches left; the ends of its targets look too, this is for hosts that went away.
    async fn release_batches(&self, now: Micros) -> Result<()> {
        let mut after = String::new();
        loop {
            let tasks = store::open_batched(self.store(), &after, SWEEP_ROWS_MAX).await?;
            let Some(last) = tasks.last() else { return Ok(()) };
            after = last.to_string();
            for task in &tasks {
                let changed = in_transaction!(self.store(), |tx| -> Result<bool> {
                    let locked = store::lock_dispatches(tx, [task]).await?;
                    let Some(dispatch) = locked.get(task) else { return Ok(false) };
                    self.release(tx, task, dispatch, now).await?;
                    let mut one = BTreeSet::new();
                    one.insert(task.clone());
                    if store::open_tasks(tx, &one).await?.is_empty() {
                        store::close_tasks(tx, &[task]).await?;
                    }
                    Ok(true)
                })?;
                if changed {
                    self.live().ring(task);
                }
            }
        }
    }

    /// Which of these agents may get `command` and `deploy` now.
    async fn able_among(
        &self,
        tx: &mut crate::store::Tx,
        agents: &[AgentId],
        now: Micros,
    ) -> Result<BTreeSet<AgentId>> {
        let known = self.hosts().reachable(tx, agents).await?;
        let rows = store::cursors_in(tx, agents).await?;
        let held = |id: &AgentId| rows.get(id).is_some_and(|r| r.cursor.hold != Hold::None);
        Ok(known.values().filter_map(|a| self.able(a, now)).filter(|id| !held(id)).collect())
    }

    /// Publishes again what was not accepted.
    async fn resend(&self, now: Micros) -> Result<()> {
        let due = store::due_sends(self.store(), now, SWEEP_ROWS_MAX).await?;
        if due.is_empty() {
            return Ok(());
        }
        let sending = in_transaction!(self.store(), |tx| -> Result<Vec<Due>> {
            let agents: Vec<AgentId> = due.iter().map(|d| d.agent_id.clone()).collect();
            let able = if self.is_paused(tx).await? {
                BTreeSet::new()
            } else {
                self.able_among(tx, &agents, now).await?
            };
            // Hosts that can't take it are looked at again just as often.
            store::mark_sent(tx, &due, now.plus_seconds(RESEND_SECONDS)).await?;
            Ok(due.iter().filter(|d| able.contains(&d.agent_id)).cloned().collect())
        })?;
        self.publish_due(sending).await
    }

    async fn pump_all(&self, now: Micros) -> Result<()> {
        let mut after = String::new();
        loop {
            let agents = store::all_waiting(self.store(), &after, SWEEP_ROWS_MAX).await?;
            let Some(last) = agents.last() else { return Ok(()) };
            after = last.to_string();
            self.pump(&agents, now).await?;
        }
    }

    /// Sends what waits for these agents, as far as they may take it.
    pub(super) async fn pump(&self, agents: &[AgentId], now: Micros) -> Result<()> {
        if agents.is_empty() || !self.may_publish() {
            return Ok(());
        }
        let mut tx = self.store().begin().await?;
        let able = if self.is_paused(&mut tx).await? {
            BTreeSet::new()
        } else {
            self.able_among(&mut tx, agents, now).await?
        };
        drop(tx);
        for agent in able {
            let (sent, tasks) = in_transaction!(self.store(), |tx| -> Result<(Vec<Due>, Vec<TaskId>)> {
                let one = std::slice::from_ref(&agent);
                let busy = store::unaccepted(tx, one).await?.get(&agent).copied().unwrap_or(0);
                let room = UNACCEPTED_MAX.saturating_sub(usize::try_from(busy).unwrap_or(usize::MAX));
                if room == 0 {
                    return Ok((Vec::new(), Vec::new()));
                }
                let waiting = store::waiting_of(tx, &agent, now, room).await?;
                let locked = store::lock_dispatches(tx, waiting.iter().map(|d| &d.task_id)).await?;
                let ids: Vec<Jti> = waiting.iter().map(|d| d.jti.clone()).collect();
                // Read under the locks: a cancel may have been quicker.
                let mut rows = store::by_message(tx, &ids, one).await?;
                rows.retain_mut(|d| {
                    let live_seq = locked.get(&d.task_id).map_or(d.live_seq, |l| l.live_seq);
                    d.apply(&Happening::Publish, now, live_seq)
                });
                store::update_deliveries(tx, &rows).await?;
                let sent =
                    waiting.into_iter().filter(|w| rows.iter().any(|r| r.jti.as_ref() == Some(&w.jti)));
                Ok((sent.collect(), locked.into_keys().collect()))
            })?;
            self.publish_due(sent).await?;
            tasks.iter().for_each(|t| self.live().ring(t));
        }
        Ok(())
    }

    /// Publishes cancels until the delivery is final. Not held by the pause switch.
    async fn send_cancels(&self, now: Micros) -> Result<()> {
        let due = store::due_cancels(self.store(), now, SWEEP_ROWS_MAX).await?;
        if due.is_empty() {
            return Ok(());
        }
        let online = in_transaction!(self.store(), |tx| -> Result<BTreeSet<AgentId>> {
            let agents: Vec<AgentId> = due.iter().map(|d| d.agent_id.clone()).collect();
            let known = self.hosts().reachable(tx, &agents).await?;
            let rows = store::cursors_in(tx, &agents).await?;
            let aside = |id: &AgentId| rows.get(id).is_some_and(|r| r.cursor.hold == Hold::SetAside);
            store::mark_cancel_sent(tx, &due, now.plus_seconds(RESEND_SECONDS)).await?;
            let there = known.values().filter(|a| a.online(now)).map(|a| a.agent_id.clone());
            Ok(there.filter(|id| !aside(id)).collect())
        })?;
        let mut by_message: BTreeMap<Jti, Vec<AgentId>> = BTreeMap::new();
        for one in due.into_iter().filter(|d| online.contains(&d.agent_id)) {
            by_message.entry(one.jti).or_default().push(one.agent_id);
        }
        let ids: Vec<Jti> = by_message.keys().cloned().collect();
        let messages = store::messages(self.store(), &ids).await?;
        for (jti, agents) in by_message {
            let Some(message) = messages.get(&jti) else { continue };
            for some in agents.chunks(signet_common::limits::AUDIENCE_MAX) {
                let cancel = Cancel {
                    iss: "controller".into(),
                    aud: some.to_vec(),
                    iat: now.seconds(),
                    exp: now.seconds() + DERIVED_EXPIRY_SECONDS,
                    jti: Jti::generate(),
                    cancels: jti.clone(),
                    cancels_exp: message.exp,
                };
                self.publish_to(some, PayloadType::Cancel, &cancel)?;
            }
        }
        Ok(())
    }

    /// Tells hosts whose reports did not come to report again, and those that an admin accepted to begin a new log.
    async fn send_resumes(&self, now: Micros) -> Result<()> {
        let before = now.plus_seconds(-BEHIND_SECONDS);
        let rows = store::behind(self.store(), before, before, RESUMES_MAX).await?;
        if rows.is_empty()
            || self.bus().depth(&Queue::Reports).await.map_err(unavailable)?.is_some_and(|n| n > 0)
        {
            return Ok(());
        }
        let agents: Vec<AgentId> = rows.iter().map(|r| r.agent_id.clone()).collect();
        in_transaction!(self.store(), |tx| -> Result<()> {
            Ok(store::mark_resumed(tx, &agents, now).await?)
        })?;
        for row in rows {
            let named = row.cursor.hold != Hold::Accepted;
            let resume = Resume {
                iss: "controller".into(),
                aud: vec![row.agent_id.clone()],
                iat: now.seconds(),
                exp: now.seconds() + DERIVED_EXPIRY_SECONDS,
                jti: Jti::generate(),
                log_id: named.then(|| row.cursor.log_id.clone()),
                seq: if named { row.cursor.seq } else { 0 },
                chain: named.then_some(row.cursor.chain),
            };
            tracing::info!(agent = %row.agent_id, seq = row.cursor.seq, "telling the host to report again");
            self.publish_to(std::slice::from_ref(&row.agent_id), PayloadType::Resume, &resume)?;
        }
        Ok(())
    }

    /// Signs one message and publishes it to each of these.
    fn publish_to<T: serde::Serialize>(
        &self,
        agents: &[AgentId],
        kind: PayloadType,
        payload: &T,
    ) -> Result<()> {
        let envelope = Envelope::sign(&self.keys().signing()?, kind, payload)
            .map_err(|e| Error::Internal(e.to_string()))?;
        let burst: Vec<Publish> = agents.iter().map(|a| (a.clone(), envelope.clone())).collect();
        self.publish_burst(burst);
        Ok(())
    }
}
