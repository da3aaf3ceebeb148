//! What other slices may ask of dispatch.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::json;
use signet_common::bus::{Bus, Health};
use signet_common::envelope::Envelope;
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, Jti, TaskId};
use tokio::sync::{Notify, mpsc};

use super::model::Happening;
use super::send::Sent;
use super::store;
use super::tasks::Target;
use super::{Kind, Outcomes, outbox};
use crate::audit::{self, Action, Author, Note};
use crate::error::{Error, Result};
use crate::hosts::Hosts;
use crate::keys::Keys;
use crate::limits::{HOST_GONE_ROWS_MAX, OUTBOX_BURSTS_MAX, RETENTION_REPORTS_MAX, RETENTION_TASKS_MAX};
use crate::live::Live;
use crate::loops::Loops;
use crate::store::{Store, Tx, in_transaction};

/// Messages and deliveries. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch(Arc<Inner>);

struct Inner {
    store: Store,
    bus: Arc<dyn Bus>,
    keys: Keys,
    hosts: Hosts,
    live: Live,
    outcomes: OnceLock<HashMap<Kind, Arc<dyn Outcomes>>>,
    bursts: mpsc::Sender<Vec<outbox::Publish>>,
    inbox: std::sync::Mutex<Option<mpsc::Receiver<Vec<outbox::Publish>>>>,
    wake: Notify,
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dispatch")
    }
}

impl Dispatch {
    /// Dispatch over these parts. Nothing moves before [`Dispatch::run`].
    #[must_use]
    pub fn new(store: Store, bus: Arc<dyn Bus>, keys: Keys, hosts: Hosts, live: Live) -> Self {
        let (bursts, inbox) = mpsc::channel(OUTBOX_BURSTS_MAX);
        Self(Arc::new(Inner {
            store,
            bus,
            keys,
            hosts,
            live,
            outcomes: OnceLock::new(),
            bursts,
            inbox: std::sync::Mutex::new(Some(inbox)),
            wake: Notify::new(),
        }))
    }

    /// Says who stores the outcomes of each kind. Once, before [`Dispatch::run`].
    pub fn register(&self, outcomes: HashMap<Kind, Arc<dyn Outcomes>>) {
        if self.0.outcomes.set(outcomes).is_err() {
            tracing::error!("outcome handlers were registered twice; the first stay");
        }
    }

    /// Starts outbox, reconciler and intake.
    pub fn run(&self, loops: &mut Loops) {
        let stop = loops.stop();
        let inbox = self.0.inbox.lock().ok().and_then(|mut inbox| inbox.take());
        if let Some(inbox) = inbox {
            loops.spawn("the outbox", outbox::run(self.0.bus.clone(), inbox, stop.clone()));
        }
        loops.spawn("the reconciler", super::reconciler::run(self.clone(), stop.clone()));
        loops.spawn("the intake of reports", super::intake::run(self.clone(), stop.clone()));
        loops.spawn("the intake of heartbeats", super::heartbeats::run(self.clone(), stop));
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn bus(&self) -> &Arc<dyn Bus> {
        &self.0.bus
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    /// Has the sweep look soon: something that it acts on was changed.
    pub fn look_soon(&self) {
        self.0.wake.notify_one();
    }

    pub(super) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(super) fn wake(&self) -> &Notify {
        &self.0.wake
    }

    pub(super) fn outcomes(&self, kind: Kind) -> Result<&Arc<dyn Outcomes>> {
        let handlers = self.0.outcomes.get();
        handlers
            .and_then(|h| h.get(&kind))
            .ok_or_else(|| Error::Internal(format!("nobody stores {kind} outcomes")))
    }

    /// Whether the bus takes publishes now.
    #[must_use]
    pub fn may_publish(&self) -> bool {
        *self.0.bus.health().borrow() == Health::Up
    }

    /// Hands a burst to the outbox. A full outbox is no loss: the rows are due again.
    pub(super) fn publish_burst(&self, burst: Vec<(AgentId, Envelope)>) {
        if !burst.is_empty() && self.0.bursts.try_send(burst).is_err() {
            tracing::warn!("the outbox is full; the sweep sends the rest");
        }
    }

    /// Publishes what a committed transaction marked as sent, and tells who watches.
    pub fn committed(&self, sent: Sent) {
        self.publish_burst(sent.publishes);
        self.0.live.ring(&sent.task);
    }

    /// Cancels every open target of a task: what was never published for certain, the rest on the agents' word.
    /// Says how many targets it concerns.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown task, or when the database fails.
    pub async fn cancel(&self, by: &Author, task: &TaskId) -> Result<usize> {
        let now = Micros::now();
        let count = in_transaction!(self.0.store, |tx| -> Result<usize> {
            let locked = store::lock_dispatches(tx, [task]).await?;
            if locked.is_empty() {
                return Err(Error::NotFound("Task not found".into()));
            }
            let open = store::open_of_task(tx, task).await?;
            let concerned = open.len();
            self.apply_locked(tx, &locked, open, |_| Happening::Cancel, now).await?;
            if concerned > 0 {
                let cancelled =
                    Note::of(Action::TaskCancel, task.as_str()).new(json!({ "hosts": concerned }));
                audit::note(tx, by, cancelled).await?;
            }
            Ok(concerned)
        })?;
        self.0.live.ring(task);
        self.0.wake.notify_one();
        Ok(count)
    }

    /// A host can't answer for what it was given: its open deliveries end `lost`, the never-sent ones `rejected`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn host_gone(&self, tx: &mut Tx, agent: &AgentId, reason: &str) -> Result<()> {
        self.end_all(tx, agent, &Happening::HostGone(reason)).await
    }

    /// A host's key counts no more: what it had ends, and it is not asked for its reports any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn host_removed(&self, tx: &mut Tx, agent: &AgentId, reason: &str) -> Result<()> {
        // Rows of logs are locked before those of dispatches, as everywhere.
        store::clear_standing(tx, agent).await?;
        self.host_gone(tx, agent, reason).await
    }

    /// An agent's key was replaced: its never-sent deliveries end `rejected`; its reports still count.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_replaced(&self, tx: &mut Tx, agent: &AgentId) -> Result<()> {
        self.end_all(tx, agent, &Happening::KeyReplaced).await
    }

    async fn end_all(&self, tx: &mut Tx, agent: &AgentId, happening: &Happening<'_>) -> Result<()> {
        let seen = store::open_of_agent(tx, agent, HOST_GONE_ROWS_MAX).await?;
        if seen.is_empty() {
            return Ok(());
        }
        let locked = store::lock_dispatches(tx, seen.iter().map(|d| &d.task_id)).await?;
        // Read again under the locks: a report may have moved some meanwhile.
        let open = store::open_of_agent(tx, agent, HOST_GONE_ROWS_MAX).await?;
        let open = open.into_iter().filter(|d| locked.contains_key(&d.task_id)).collect();
        // What this lets go is found by the next sweep.
        self.apply_locked(tx, &locked, open, |_| happening.clone(), Micros::now()).await.map(drop)
    }

    /// A task's messages as they were signed, after this one; none for a body that may hold secrets.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn messages(
        &self,
        task: &TaskId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(Jti, Option<Envelope>)>> {
        Ok(store::task_messages(&self.0.store, task, after, limit).await?)
    }

    /// These reports as they were signed, each named by its agent and its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reports(&self, wanted: &[(AgentId, Jti)]) -> Result<Vec<(AgentId, Jti, Envelope)>> {
        Ok(store::reports(&self.0.store, wanted).await?)
    }

    /// One target of a task.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn target(&self, task: &TaskId, hostname: &Hostname) -> Result<Option<Target>> {
        Ok(store::one_of(&self.0.store, task, hostname).await?)
    }

    /// A task's ended targets in order of finishing, after this place.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn finished(&self, task: &TaskId, after: (i64, u64), limit: usize) -> Result<Vec<Target>> {
        Ok(store::finished(&self.0.store, task, after, limit).await?)
    }

    /// A task's targets that changed after this place of its live sequence (and ordinal), oldest change first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn changed(&self, task: &TaskId, after: (i64, u64), limit: usize) -> Result<Vec<Target>> {
        Ok(store::changed(&self.0.store, task, after, limit).await?)
    }

    /// Open deliveries by state, for the metrics: those that ended are history, and grow for ever.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_totals(&self) -> Result<Vec<(String, i64)>> {
        Ok(store::count_open(&self.0.store).await?.into_iter().map(|c| (c.state, c.number)).collect())
    }

    /// How many verified reports could not be stored.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn parked(&self) -> Result<i64> {
        Ok(store::count_parked(&self.0.store).await?)
    }

    /// Forgets a few of the agents' reports from before `before`; says whether there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_reports(&self, before: Micros) -> Result<bool> {
        let gone = store::delete_old_reports(&self.0.store, before, RETENTION_REPORTS_MAX).await?;
        Ok(gone == RETENTION_REPORTS_MAX)
    }

    /// Forgets a few ended tasks, and orphans, from before `before`; says whether there is more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_old(&self, before: Micros) -> Result<bool> {
        let orphans = store::delete_old_orphans(&self.0.store, before, RETENTION_TASKS_MAX).await?;
        let tasks = store::old_dispatches(&self.0.store, before, RETENTION_TASKS_MAX).await?;
        if !tasks.is_empty() {
            in_transaction!(self.0.store, |tx| -> Result<()> {
                for handler in self.0.outcomes.get().into_iter().flat_map(HashMap::values) {
                    handler.forget(tx, &tasks).await?;
                }
                Ok(store::delete(tx, &tasks).await?)
            })?;
        }
        Ok(tasks.len() == RETENTION_TASKS_MAX || orphans == RETENTION_TASKS_MAX)
    }
}
