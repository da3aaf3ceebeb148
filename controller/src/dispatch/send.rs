//! Writing a task's messages and deliveries: the outbox of the transactional-outbox pattern.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use signet_common::envelope::{Envelope, PayloadType};
use signet_common::time::Micros;
use signet_common::{AgentId, Jti, SigningKey, TaskId};

use super::Kind;
use super::drafts::Drafts;
use super::gate::Gate;
use super::logs::Hold;
use super::model::{Delivery, Happening, State};
use super::rolling::Rolling;
use super::service::Dispatch;
use super::store::{self, Message, Stored};
use crate::error::{Error, Result};
use crate::hosts::Candidate;
use crate::limits::{DEADLINE_GRACE_SECONDS, UNACCEPTED_MAX};
use crate::store::Tx;

/// The claims that a message's body begins with.
#[derive(Debug, Clone)]
pub struct MessageClaims {
    /// The hosts, at most 64.
    pub aud: Vec<AgentId>,
    /// Issued, whole seconds since 1970.
    pub iat: i64,
    /// The last second in which it may start.
    pub exp: i64,
    /// Its id.
    pub jti: Jti,
}

/// How many hosts share a message.
#[derive(Clone, Copy)]
pub enum Audience<'a> {
    /// Up to 64 hosts of a batch.
    Shared,
    /// None: it holds what is for one host alone. Says of an agent why it can get none; then that host is refused, and the
    /// others go on.
    Alone(&'a (dyn Fn(&AgentId) -> Option<&'static str> + Sync)),
}

/// What a slice wants sent.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// The task or job.
    pub task_id: &'a TaskId,
    /// Who hears of the outcomes.
    pub kind: Kind,
    /// The payload's type.
    pub payload_type: PayloadType,
    /// Now.
    pub now: Micros,
    /// Seconds from the start until it is ended.
    pub timeout: u32,
    /// Seconds from now in which it may start.
    pub expires_in: u32,
    /// How it goes from batch to batch.
    pub rolling: Rolling,
    /// The targets in the order in which they go, as they match now.
    pub candidates: &'a [Candidate],
    /// Whether each host gets a message of its own.
    pub audience: Audience<'a>,
    /// Whether its messages may hold secrets: then they are emptied once nobody may start them any more.
    pub secret: bool,
    /// What an agent must know to understand it.
    pub features: &'a [&'static str],
    /// Writes a message's body.
    pub body: &'a Body,
    /// What was signed of it before; what it lacks is signed now.
    pub drafts: Option<&'a Drafts>,
}

/// Writes a message's body; it may take its time.
pub type Body = Arc<dyn Fn(&MessageClaims) -> Result<Vec<u8>> + Send + Sync>;

/// What is to be published once the transaction is committed.
#[derive(Debug)]
#[must_use = "nothing is published before Dispatch::committed"]
pub struct Sent {
    /// How many targets stand where, as they are committed.
    pub tally: Vec<(State, u64)>,
    /// Whether the bus was up and dispatch not paused.
    pub can_send: bool,
    pub(super) task: TaskId,
    pub(super) publishes: Vec<(AgentId, Envelope)>,
}

/// Messages that are being signed.
pub(super) type Signing = tokio::task::JoinHandle<Result<Vec<Message>>>;

impl Dispatch {
    /// Writes the messages and deliveries of an order. After the commit, hand the answer to [`Dispatch::committed`].
    ///
    /// # Errors
    /// When the database or the key fails.
    pub async fn send(&self, tx: &mut Tx, order: &Order<'_>) -> Result<Sent> {
        let (start, last) = (order.now, order.now.plus_seconds(i64::from(order.expires_in)));
        let mut deliveries = plan(order, deadline(last, order.timeout));
        let gate = self.gate(tx).await?;
        let drafted = match order.drafts {
            Some(drafts) => self.adopt(tx, drafts, &gate, &mut deliveries).await?,
            None => Vec::new(),
        };
        let audiences = number(&mut deliveries, order.audience);
        // Signing takes a core for a millisecond a message; the database is at work meanwhile.
        let window = (start.seconds(), last.seconds());
        let key = gate.keys.signing().clone();
        let signing = sign(order.payload_type, window, audiences, order.body.clone(), key);
        let can_send = self.may_publish() && gate.open;
        if can_send {
            self.release_first(tx, &gate, order, &mut deliveries).await?;
        }
        insert(tx, order, &deliveries, store::FIRST_BATCH).await?;
        let mut messages = signed(signing).await?;
        messages.extend(drafted);
        store::insert_messages(tx, order.task_id, &messages, order.secret).await?;

        let envelopes: HashMap<&Jti, &Envelope> = messages.iter().map(|m| (&m.jti, &m.envelope)).collect();
        let envelope = |jti: &Jti| envelopes.get(jti).copied().cloned();
        let publishes = deliveries
            .iter()
            .filter(|d| d.delivery.state == State::Sent)
            .filter_map(|d| Some((d.agent_id.clone()?, envelope(d.jti.as_ref()?)?)))
            .collect();
        Ok(Sent { task: order.task_id.clone(), publishes, tally: tally(&deliveries), can_send })
    }

    /// Marks as sent what can go at once: first batch, host there and able.
    async fn release_first(
        &self,
        tx: &mut Tx,
        gate: &Gate,
        order: &Order<'_>,
        deliveries: &mut [Stored],
    ) -> Result<()> {
        let able: Vec<AgentId> =
            order.candidates.iter().filter_map(|c| gate.able(c.agent.as_ref()?, order.now)).collect();
        let able = self.not_held(tx, able).await?;
        let unaccepted = store::unaccepted(tx, &able.iter().cloned().collect::<Vec<_>>()).await?;
        for delivery in deliveries.iter_mut().filter(|d| d.batch == 0) {
            let Some(agent) = delivery.agent_id.as_ref().filter(|id| able.contains(id)) else { continue };
            if unaccepted.get(agent).copied().unwrap_or(0) < UNACCEPTED_MAX as u64 {
                delivery.apply(&Happening::Publish, order.now, 1);
            }
        }
        Ok(())
    }

    async fn not_held(
        &self,
        tx: &mut Tx,
        agents: Vec<AgentId>,
    ) -> Result<std::collections::BTreeSet<AgentId>> {
        let rows = store::cursors(&mut *tx, &agents).await?;
        let free = |id: &AgentId| rows.get(id).is_none_or(|r| r.cursor.hold == Hold::None);
        Ok(agents.into_iter().filter(free).collect())
    }
}

/// Writes a new task's rows, but its messages.
pub(super) async fn insert(
    tx: &mut Tx,
    order: &Order<'_>,
    deliveries: &[Stored],
    released_batch: i64,
) -> Result<()> {
    let new = store::NewDispatch {
        task: order.task_id,
        kind: order.kind.as_str(),
        now: order.now,
        timeout: order.timeout,
        rolling: order.rolling,
        released_batch,
        last_batch: deliveries.iter().map(|d| d.batch).max().unwrap_or(0),
        open: deliveries.iter().any(|d| !d.delivery.state.is_final()),
    };
    store::insert_dispatch(tx, &new).await?;
    Ok(store::insert_deliveries(tx, deliveries).await?)
}

/// How many stand where.
pub(super) fn tally(deliveries: &[Stored]) -> Vec<(State, u64)> {
    let mut tally: BTreeMap<State, u64> = BTreeMap::new();
    deliveries.iter().for_each(|d| *tally.entry(d.delivery.state).or_default() += 1);
    tally.into_iter().collect()
}

/// When a delivery ends without a word, if `last` is the last moment at which it may start.
pub(super) fn deadline(last: Micros, timeout: u32) -> Micros {
    last.plus_seconds(i64::from(timeout) + DEADLINE_GRACE_SECONDS)
}

/// Whom each message is for.
pub(super) type Audiences = Vec<(Jti, Vec<AgentId>)>;

/// Names a message for each batch, or for each 64 hosts of it, or for each host, in their deliveries that name none.
pub(super) fn number(deliveries: &mut [Stored], audience: Audience<'_>) -> Audiences {
    let size = match audience {
        Audience::Shared => signet_common::limits::AUDIENCE_MAX,
        Audience::Alone(_) => 1,
    };
    let mut audiences = Vec::new();
    let open = |d: &&mut Stored| !d.delivery.state.is_final() && d.agent_id.is_some() && d.jti.is_none();
    let mut open: Vec<&mut Stored> = deliveries.iter_mut().filter(open).collect();
    for batch in open.chunk_by_mut(|a, b| a.batch == b.batch) {
        for some in batch.chunks_mut(size) {
            let jti = Jti::generate();
            some.iter_mut().for_each(|d| d.jti = Some(jti.clone()));
            audiences.push((jti, some.iter().filter_map(|d| d.agent_id.clone()).collect()));
        }
    }
    audiences
}

/// Begins to write and to sign one message for each audience; `iat` and `exp` are the same in all.
pub(super) fn sign(
    kind: PayloadType,
    window: (i64, i64),
    audiences: Audiences,
    body: Body,
    key: SigningKey,
) -> Signing {
    let one = move |(jti, aud)| message(&key, kind, window, (jti, aud), &body);
    tokio::task::spawn_blocking(move || audiences.into_iter().map(one).collect())
}

/// A signed message.
pub(super) fn message(
    key: &SigningKey,
    kind: PayloadType,
    (iat, exp): (i64, i64),
    (jti, mut aud): (Jti, Vec<AgentId>),
    body: &Body,
) -> Result<Message> {
    aud.sort();
    let body = body(&MessageClaims { aud, iat, exp, jti: jti.clone() })?;
    let envelope =
        Envelope::sign_bytes(key, kind, body.into()).map_err(|e| Error::TooLarge(e.to_string()))?;
    Ok(Message { jti, envelope, exp })
}

/// Waits for what is being signed.
pub(super) async fn signed(signing: Signing) -> Result<Vec<Message>> {
    signing.await.map_err(|e| Error::Internal(e.to_string()))?
}

/// One delivery per target, in its batch; what can never be sent is final at once.
pub(super) fn plan(order: &Order<'_>, deadline: Micros) -> Vec<Stored> {
    let sizes = order.rolling.sizes(order.candidates.len());
    let batches = (0_i64..).zip(sizes).flat_map(|(batch, size)| std::iter::repeat_n(batch, size));
    let one = |((index, candidate), batch): ((usize, &Candidate), i64)| {
        let lacking = candidate.agent.as_ref().and_then(|a| {
            let features = a.features.as_ref()?;
            order.features.iter().find(|f| !features.iter().any(|known| known == *f))
        });
        let unable = |agent: &AgentId| match order.audience {
            Audience::Shared => None,
            Audience::Alone(unable) => unable(agent),
        };
        let delivery = match (&candidate.agent, lacking) {
            (None, _) => Delivery::refused("no_agent", order.now),
            (Some(_), Some(feature)) => {
                Delivery::refused(&format!("unsupported: this agent does not know {feature}"), order.now)
            }
            (Some(agent), None) => match unable(&agent.agent_id) {
                Some(why) => Delivery::refused(why, order.now),
                None => Delivery::waiting(),
            },
        };
        let ended = delivery.state.is_final();
        Stored {
            task_id: order.task_id.clone(),
            hostname: candidate.hostname.clone(),
            ordinal: index as u64 + 1,
            agent_id: candidate.agent.as_ref().map(|a| a.agent_id.clone()),
            jti: None,
            batch,
            deadline_at: deadline,
            send_at: None,
            cancel_send_at: None,
            final_seq: ended.then_some(1),
            live_seq: 1,
            delivery,
        }
    };
    order.candidates.iter().enumerate().zip(batches).map(one).collect()
}
