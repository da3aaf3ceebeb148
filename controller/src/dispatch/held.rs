//! Tasks that await approval: their deliveries stand there with their messages' ids, but there is no message that could be
//! sent. It is signed when the last approval arrives.

use std::collections::{BTreeMap, HashMap};

use signet_common::envelope::PayloadType;
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, TaskId};

use super::model::Happening;
use super::send::{Body, Order, Sent, deadline, insert, number, plan, sign, signed, tally};
use super::service::Dispatch;
use super::store;
use crate::error::Result;
use crate::store::Tx;

/// A task that was written and waits.
#[derive(Debug)]
pub struct Held {
    /// For [`Dispatch::committed`]; nothing is published.
    pub sent: Sent,
    /// Every agent that may run it. Empty: no target has one that could, and nothing waits.
    pub agents: Vec<AgentId>,
}

/// A task that awaits approval, locked until the end of the transaction: nobody else releases, refuses, cancels or
/// expires it meanwhile.
#[derive(Debug)]
#[must_use = "it is locked to be released or refused"]
pub struct HeldTask {
    task: TaskId,
    locked: HashMap<TaskId, store::Dispatch>,
}

/// What is sent of a held task once it was approved.
pub struct Approved {
    /// The payload's type.
    pub payload_type: PayloadType,
    /// Now.
    pub now: Micros,
    /// The last second in which it may start, since 1970.
    pub exp: i64,
    /// Seconds from the start until it is ended.
    pub timeout: u32,
    /// Whether its messages may hold secrets; see [`Order::secret`].
    pub secret: bool,
    /// Writes a message's body.
    pub body: Body,
}

impl Dispatch {
    /// Writes the deliveries of an order and holds them until `until`, when they end as expired. `body` is not asked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold(&self, tx: &mut Tx, order: &Order<'_>, until: Micros) -> Result<Held> {
        let mut deliveries = plan(order, until);
        let agents: Vec<AgentId> =
            number(&mut deliveries, order.audience).into_iter().flat_map(|(_, aud)| aud).collect();
        let released = if agents.is_empty() { store::FIRST_BATCH } else { store::HELD };
        insert(tx, order, &deliveries, released).await?;
        let sent = Sent {
            task: order.task_id.clone(),
            publishes: Vec::new(),
            tally: tally(&deliveries),
            can_send: false,
        };
        Ok(Held { sent, agents })
    }

    /// Locks a task that awaits approval; none when it does so no more. To be the transaction's first statement.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lock_held(&self, tx: &mut Tx, task: &TaskId) -> Result<Option<HeldTask>> {
        let locked = store::lock_dispatches(tx, [task]).await?;
        let held = locked.get(task).is_some_and(|d| d.is_held() && d.open != 0);
        Ok(held.then(|| HeldTask { task: task.clone(), locked }))
    }

    /// Signs the messages of a held task and lets its first batch go: the sweep sends it. After the commit, call
    /// [`Dispatch::decided`].
    ///
    /// # Errors
    /// When the database or the key fails.
    pub async fn release_held(&self, tx: &mut Tx, held: HeldTask, approved: Approved) -> Result<()> {
        let mut audiences: BTreeMap<Jti, Vec<AgentId>> = BTreeMap::new();
        for delivery in store::open_of_task(tx, &held.task).await? {
            if let (Some(jti), Some(agent)) = (delivery.jti, delivery.agent_id) {
                audiences.entry(jti).or_default().push(agent);
            }
        }
        let gate = self.gate(tx).await?;
        let window = (approved.now.seconds(), approved.exp);
        let audiences = audiences.into_iter().collect();
        let key = gate.keys.signing().clone();
        let signing = sign(approved.payload_type, window, audiences, approved.body, key);
        store::insert_messages(tx, &held.task, &signed(signing).await?, approved.secret).await?;
        let last = Micros::from_seconds(approved.exp);
        store::set_deadline(tx, &held.task, deadline(last, approved.timeout)).await?;
        store::set_released(tx, &held.task, store::FIRST_BATCH).await?;
        Ok(store::settle(tx, &held.locked).await?)
    }

    /// Ends a held task: every delivery is rejected with this reason. After the commit, call [`Dispatch::decided`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refuse_held(&self, tx: &mut Tx, held: HeldTask, reason: &str, now: Micros) -> Result<()> {
        let open = store::open_of_task(tx, &held.task).await?;
        self.apply_locked(tx, &held.locked, open, |_| Happening::NotApproved(reason), now).await.map(drop)
    }

    /// Cancels a held task: nothing of it is ever sent. After the commit, call [`Dispatch::decided`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel_held(&self, tx: &mut Tx, held: HeldTask, now: Micros) -> Result<()> {
        let open = store::open_of_task(tx, &held.task).await?;
        self.apply_locked(tx, &held.locked, open, |_| Happening::Cancel, now).await.map(drop)
    }

    /// Sends what was released, and tells who watches.
    pub fn decided(&self, task: &TaskId) {
        self.live().ring(task);
        self.wake().notify_one();
    }
}
