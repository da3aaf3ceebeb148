//! The sweep: compares what the rows want with what the agents last said, and acts on the difference.
//!
//! One controller sweeps at a time. Every step is bounded, idempotent, and harmless if it is done twice.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use signet_common::bus::{Health, Queue};
use signet_common::envelope::{Envelope, PayloadType};
use signet_common::messages::{Cancel, Resume};
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, Jti, SigningKey, TaskId};
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::keyrings::{Keyrings, by_keyring};
use super::logs::Hold;
use super::model::Happening;
use super::outbox::Publish;
use super::service::Dispatch;
use super::store::{self, Due, LogRow, Stored};
use crate::error::{Error, Result};
use crate::keys::FleetKeys;
use crate::leases::Lease;
use crate::limits::{
    BEHIND_SECONDS, PUMP_AGENTS_MAX, RESEND_SECONDS, RESUMES_MAX, SWEEP_MILLISECONDS,
    SWEEP_PAUSE_MILLISECONDS, SWEEP_ROWS_MAX, UNACCEPTED_MAX,
};
use crate::store::{Tx, in_transaction};

/// `exp` of a cancel and a resume that is derived when it is sent, in seconds after its `iat`.
pub(super) const DERIVED_EXPIRY_SECONDS: i64 = 60;

/// Sweeps until `stop`.
pub(super) async fn run(dispatch: Dispatch, stop: CancellationToken) {
    let lease = Lease::new(dispatch.store().clone(), "reconciler");
    let mut health = dispatch.bus().health();
    let mut was = Health::Down;
    let mut keyrings = Keyrings::default();
    loop {
        if let Err(error) = turn(&dispatch, &lease, &mut was, &mut keyrings, &stop).await {
            tracing::warn!(%error, "the sweep failed; it is tried again");
        }
        tokio::time::sleep(Duration::from_millis(SWEEP_PAUSE_MILLISECONDS)).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = dispatch.wake().notified() => {}
            _ = health.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(SWEEP_MILLISECONDS)) => {}
        }
    }
    lease.release().await;
}

/// One sweep. A stop is heeded between steps and not inside: a transaction that is dropped in its `BEGIN` would leave its
/// connection inside it.
async fn turn(
    dispatch: &Dispatch,
    lease: &Lease,
    was: &mut Health,
    keyrings: &mut Keyrings,
    stop: &CancellationToken,
) -> Result<()> {
    let now = Micros::now();
    let is = *dispatch.bus().health().borrow();
    let came_back = is == Health::Up && *was != Health::Up;
    // Until it succeeds, each turn tries it again.
    *was = if came_back && !step("after the broker came back", dispatch.broker_is_back(now)).await {
        Health::Down
    } else {
        is
    };
    // Also who doesn't sweep keeps the newest keys, and their copy.
    dispatch.keys().newest(dispatch.store()).await?;
    if stop.is_cancelled() || !lease.take().await? {
        return Ok(());
    }
    step("sharing keyrings", dispatch.share_keyrings(keyrings, now)).await;
    step("ending what is overdue", dispatch.end_overdue(now)).await;
    step("releasing batches", dispatch.release_batches(now)).await;
    if is == Health::Up && !stop.is_cancelled() {
        step("sending cancels", dispatch.send_cancels(now)).await;
        step("sending resumes", dispatch.send_resumes(now)).await;
    }
    if is == Health::Up && !stop.is_cancelled() {
        step("sending again", dispatch.resend(now)).await;
        step("sending what waits", dispatch.pump_all(now)).await;
    }
    Ok(())
}

/// Does one step; says whether it succeeded. One that fails, for whatever reason, must not keep the others from their
/// work.
async fn step(what: &'static str, work: impl Future<Output = Result<()>>) -> bool {
    let done = work.await;
    if let Err(error) = &done {
        tracing::warn!(%error, what, "a step of the sweep failed; it is tried again");
    }
    done.is_ok()
}

fn unavailable(error: signet_common::bus::BusError) -> Error {
    Error::Unavailable { message: error.to_string(), retry_after: 1 }
}

impl Dispatch {
    /// The broker may have come back empty.
    async fn broker_is_back(&self, now: Micros) -> Result<()> {
        for queue in [Queue::Reports, Queue::Heartbeats] {
            self.bus().declare(&queue).await.map_err(unavailable)?;
        }
        in_transaction!(self.store(), |tx| -> Result<()> {
            store::send_all_soon(tx, now).await?;
            Ok(())
        })
    }

    /// Ends what is past its deadline.
    async fn end_overdue(&self, now: Micros) -> Result<()> {
        let overdue = store::overdue(self.store(), now, SWEEP_ROWS_MAX).await?;
        if overdue.is_empty() {
            return Ok(());
        }
        let tasks = in_transaction!(self.store(), |tx| -> Result<Vec<TaskId>> {
            let locked = store::lock_dispatches(tx, overdue.iter().map(|(task, _)| task)).await?;
            // Read under the locks: a report may have been quicker.
            let mut rows = store::at(tx, &overdue).await?;
            // … or the last approval, which gave it another deadline.
            rows.retain(|d| locked.contains_key(&d.task_id) && d.deadline_at < now);
            let agents: BTreeSet<AgentId> = rows.iter().filter_map(|d| d.agent_id.clone()).collect();
            let known = self.hosts().reachable(tx, &agents.into_iter().collect::<Vec<_>>()).await?;
            let heard: HashMap<AgentId, String> = known
                .into_iter()
                .filter_map(|(id, agent)| Some((id, agent.last_heartbeat?.rfc3339())))
                .collect();
            let deadline = |d: &Stored| {
                if locked.get(&d.task_id).is_some_and(store::Dispatch::is_held) {
                    return Happening::ApprovalDue;
                }
                let word = d.agent_id.as_ref().and_then(|id| heard.get(id));
                Happening::Deadline(word.map_or("it was asked for", String::as_str))
            };
            self.apply_locked(tx, &locked, rows, deadline, now).await?;
            Ok(locked.into_keys().collect())
        })?;
        tasks.iter().for_each(|task| self.live().ring(task));
        if overdue.len() >= SWEEP_ROWS_MAX {
            // There are more.
            self.wake().notify_one();
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
            for task in &self.due_batches(&tasks, now).await? {
                let changed = in_transaction!(self.store(), |tx| -> Result<bool> {
                    let locked = store::lock_dispatches(tx, [task]).await?;
                    let Some(dispatch) = locked.get(task) else { return Ok(false) };
                    let changed = self.release(tx, task, dispatch, now).await?;
                    store::settle(tx, &locked).await?;
                    Ok(changed)
                })?;
                if changed {
                    self.live().ring(task);
                }
            }
        }
    }

    /// Which of these have something to release or to end. Most only wait, and are looked at without a lock or a commit.
    async fn due_batches(&self, tasks: &[TaskId], now: Micros) -> Result<Vec<TaskId>> {
        let mut tx = self.store().begin().await?;
        let mut due = Vec::new();
        for (task, dispatch) in store::dispatches(&mut tx, tasks).await? {
            if self.is_due(&mut tx, &task, &dispatch, now).await? {
                due.push(task);
            }
        }
        Ok(due)
    }

    /// Which of these agents may get `command` and `deploy` now.
    async fn able_among(
        &self,
        tx: &mut Tx,
        gate: &Gate,
        agents: &[AgentId],
        now: Micros,
    ) -> Result<BTreeSet<AgentId>> {
        if !gate.open {
            return Ok(BTreeSet::new());
        }
        let known = self.hosts().reachable(tx, agents).await?;
        let rows = store::cursors(&mut *tx, agents).await?;
        let held = |id: &AgentId| rows.get(id).is_some_and(|r| r.cursor.hold != Hold::None);
        Ok(known.values().filter_map(|a| gate.able(a, now)).filter(|id| !held(id)).collect())
    }

    /// Publishes again what was not accepted.
    async fn resend(&self, now: Micros) -> Result<()> {
        let due = store::due_sends(self.store(), now, SWEEP_ROWS_MAX).await?;
        if due.is_empty() {
            return Ok(());
        }
        let (sending, keys) = in_transaction!(self.store(), |tx| -> Result<(Vec<Due>, Arc<FleetKeys>)> {
            let agents: Vec<AgentId> = due.iter().map(|d| d.agent_id.clone()).collect();
            let gate = self.gate(tx).await?;
            let able = self.able_among(tx, &gate, &agents, now).await?;
            // Hosts that can't take it are looked at again just as often.
            store::mark_sent(tx, &due, now.plus_seconds(RESEND_SECONDS)).await?;
            let sending = due.iter().filter(|d| able.contains(&d.agent_id)).cloned().collect();
            Ok((sending, gate.keys))
        })?;
        self.publish_due(sending, &keys).await
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
        // Looked at first: most have nothing that may go, and nothing is written for them.
        let mut tx = self.store().begin().await?;
        let gate = self.gate(&mut tx).await?;
        let able: Vec<AgentId> = self.able_among(&mut tx, &gate, agents, now).await?.into_iter().collect();
        let ready = self.next_for(&mut tx, &able, now).await?;
        drop(tx);
        let ready: BTreeSet<AgentId> = ready.into_iter().map(|d| d.agent_id).collect();
        for some in ready.into_iter().collect::<Vec<_>>().chunks(PUMP_AGENTS_MAX) {
            let (sent, tasks) = in_transaction!(self.store(), |tx| -> Result<(Vec<Due>, Vec<TaskId>)> {
                self.take_waiting(tx, some, now).await
            })?;
            self.publish_due(sent, &gate.keys).await?;
            tasks.iter().for_each(|t| self.live().ring(t));
        }
        Ok(())
    }

    /// What waits for these agents, is released, and has room there.
    async fn next_for(&self, tx: &mut Tx, agents: &[AgentId], now: Micros) -> Result<Vec<Due>> {
        let busy = store::unaccepted(tx, agents).await?;
        let mut waiting = Vec::new();
        for agent in agents {
            let busy = busy.get(agent).map_or(0, |&n| usize::try_from(n).unwrap_or(usize::MAX));
            let room = UNACCEPTED_MAX.saturating_sub(busy);
            if room > 0 {
                waiting.extend(store::waiting_of(tx, agent, now, room).await?);
            }
        }
        Ok(waiting)
    }

    /// Marks as sent what waits for these agents, as far as each has room; gives it, and its tasks.
    async fn take_waiting(
        &self,
        tx: &mut Tx,
        agents: &[AgentId],
        now: Micros,
    ) -> Result<(Vec<Due>, Vec<TaskId>)> {
        // Intake and the sweep must not both fill the same room.
        store::lock_cursors(tx, agents).await?;
        let mut waiting = self.next_for(tx, agents, now).await?;
        let locked = store::lock_dispatches(tx, waiting.iter().map(|d| &d.task_id)).await?;
        let keys: Vec<(TaskId, Hostname)> =
            waiting.iter().map(|d| (d.task_id.clone(), d.hostname.clone())).collect();
        // Read under the locks: a cancel may have been quicker.
        let mut rows = store::at(tx, &keys).await?;
        rows.retain_mut(|d| {
            let live_seq = locked.get(&d.task_id).map_or(d.live_seq, |l| l.live_seq);
            d.apply(&Happening::Publish, now, live_seq)
        });
        store::update_deliveries(tx, &rows).await?;
        store::settle(tx, &locked).await?;
        let taken: HashSet<(&TaskId, &Hostname)> = rows.iter().map(|d| (&d.task_id, &d.hostname)).collect();
        waiting.retain(|w| taken.contains(&(&w.task_id, &w.hostname)));
        Ok((waiting, locked.into_keys().collect()))
    }

    /// Publishes cancels until the delivery is final. Not held by the pause switch.
    async fn send_cancels(&self, now: Micros) -> Result<()> {
        let due = store::due_cancels(self.store(), now, SWEEP_ROWS_MAX).await?;
        if due.is_empty() {
            return Ok(());
        }
        let online = in_transaction!(self.store(), |tx| -> Result<HashMap<AgentId, u64>> {
            let agents: Vec<AgentId> = due.iter().map(|d| d.agent_id.clone()).collect();
            let known = self.hosts().reachable(tx, &agents).await?;
            let rows = store::cursors(&mut *tx, &agents).await?;
            let aside = |id: &AgentId| rows.get(id).is_some_and(|r| r.cursor.hold == Hold::SetAside);
            store::mark_cancel_sent(tx, &due, now.plus_seconds(RESEND_SECONDS)).await?;
            let there = known.values().filter(|a| a.online(now)).map(|a| (a.agent_id.clone(), a.keyring));
            Ok(there.filter(|(id, _)| !aside(id)).collect())
        })?;
        // What a host that is behind believes is signed with the key that it knows.
        let mut by_message: BTreeMap<(Jti, u64), Vec<AgentId>> = BTreeMap::new();
        for one in due {
            if let Some(holds) = online.get(&one.agent_id) {
                by_message.entry((one.jti, *holds)).or_default().push(one.agent_id);
            }
        }
        let ids: BTreeSet<Jti> = by_message.keys().map(|(jti, _)| jti.clone()).collect();
        let messages = store::messages(self.store(), &ids.into_iter().collect::<Vec<_>>()).await?;
        let keys = self.keys().newest(self.store()).await?;
        for ((jti, holds), agents) in by_message {
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
                self.publish_to(keys.signing_for(holds), some, PayloadType::Cancel, &cancel)?;
            }
        }
        Ok(())
    }

    /// Tells hosts whose reports did not come to report again, and those that an admin accepted to begin a new log.
    async fn send_resumes(&self, now: Micros) -> Result<()> {
        let before = now.plus_seconds(-BEHIND_SECONDS);
        let rows = store::behind(self.store(), before, before, SWEEP_ROWS_MAX).await?;
        if rows.is_empty()
            || self.bus().depth(&Queue::Reports).await.map_err(unavailable)?.is_some_and(|n| n > 0)
        {
            return Ok(());
        }
        let rows = in_transaction!(self.store(), |tx| -> Result<Vec<(LogRow, u64)>> {
            let agents: Vec<AgentId> = rows.iter().map(|r| r.agent_id.clone()).collect();
            let known = self.hosts().reachable(tx, &agents).await?;
            let there = |r: &&LogRow| known.get(&r.agent_id).is_some_and(|a| a.accepted && a.online(now));
            let told: Vec<LogRow> = rows.iter().filter(there).take(RESUMES_MAX).cloned().collect();
            // Who is not there is looked at again just as often.
            let seen: Vec<&AgentId> = rows.iter().filter(|r| !there(r)).map(|r| &r.agent_id).collect();
            let seen: Vec<&AgentId> = seen.into_iter().chain(told.iter().map(|r| &r.agent_id)).collect();
            store::mark_resumed(tx, &seen, now).await?;
            let holds = |row: &LogRow| known.get(&row.agent_id).map_or(0, |a| a.keyring);
            Ok(told.into_iter().map(|row| (row.clone(), holds(&row))).collect())
        })?;
        let keys = self.keys().newest(self.store()).await?;
        for (row, holds) in rows {
            if row.cursor.hold == Hold::Accepted {
                self.ask_for_hello(&[(row.agent_id, holds)], now)?;
                continue;
            }
            let resume = Resume {
                iss: "controller".into(),
                aud: vec![row.agent_id.clone()],
                iat: now.seconds(),
                exp: now.seconds() + DERIVED_EXPIRY_SECONDS,
                jti: Jti::generate(),
                log_id: Some(row.cursor.log_id.clone()),
                seq: row.cursor.seq,
                chain: Some(row.cursor.chain),
            };
            tracing::info!(agent = %row.agent_id, seq = row.cursor.seq, "telling the host to report again");
            let key = keys.signing_for(holds);
            self.publish_to(key, std::slice::from_ref(&row.agent_id), PayloadType::Resume, &resume)?;
        }
        Ok(())
    }

    /// Makes these say hello: a `resume` naming no log, signed with a key that each believes by the keyring that it holds.
    pub(super) fn ask_for_hello(&self, agents: &[(AgentId, u64)], now: Micros) -> Result<()> {
        let keys = self.keys().fleet()?;
        let all = by_keyring(agents.iter().cloned());
        let parts = all.iter().flat_map(|(holds, agents)| {
            agents.chunks(signet_common::limits::AUDIENCE_MAX).map(|some| (*holds, some))
        });
        for (holds, some) in parts {
            let resume = Resume {
                iss: "controller".into(),
                aud: some.to_vec(),
                iat: now.seconds(),
                exp: now.seconds() + DERIVED_EXPIRY_SECONDS,
                jti: Jti::generate(),
                log_id: None,
                seq: 0,
                chain: None,
            };
            tracing::info!(agents = ?some, "telling hosts to say hello");
            self.publish_to(keys.signing_for(holds), some, PayloadType::Resume, &resume)?;
        }
        Ok(())
    }

    /// Signs one message and publishes it to each of these.
    pub(super) fn publish_to<T: serde::Serialize>(
        &self,
        key: &SigningKey,
        agents: &[AgentId],
        kind: PayloadType,
        payload: &T,
    ) -> Result<()> {
        let envelope = Envelope::sign(key, kind, payload).map_err(|e| Error::Internal(e.to_string()))?;
        let burst: Vec<Publish> = agents.iter().map(|a| (a.clone(), envelope.clone())).collect();
        self.publish_burst(burst);
        Ok(())
    }
}
