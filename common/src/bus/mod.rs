//! The message bus: one small trait and two implementations, AMQP 0-9-1 ([`amqp`]) and in-process ([`memory`]).
//!
//! The broker may lose everything at any moment; the bus only makes things fast. So nothing here retries a publish:
//! what was not confirmed stands in the database or in a journal and is sent again from there.

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod memory;
pub mod topology;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::envelope::Envelope;
use crate::ids::AgentId;
use crate::limits::HEADERS_BYTES_MAX;

/// A queue. Its arguments are the topology's (DESIGN 4) and live with the implementation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Queue {
    /// `signet.agent.<id>`: what one agent is to take.
    Agent(AgentId),
    /// `signet.reports`: reports of all agents.
    Reports,
    /// `signet.heartbeats`: heartbeats of all agents.
    Heartbeats,
    /// `signet.refused`: reports that nobody could verify.
    Refused,
    /// This controller's share of `signet.live`; gone with its consumer. The text names the controller's start.
    Live(String),
}

impl Queue {
    /// The queue's name on the broker.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Agent(id) => format!("signet.agent.{id}"),
            Self::Reports => "signet.reports".into(),
            Self::Heartbeats => "signet.heartbeats".into(),
            Self::Refused => "signet.refused".into(),
            Self::Live(start) => format!("signet.live.{start}"),
        }
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// To one agent's queue: default exchange, mandatory, non-persistent.
    Agent(AgentId),
    /// To `signet.reports` over `signet.up`: mandatory, persistent.
    Reports,
    /// To `signet.heartbeats` over `signet.up`: non-persistent.
    Heartbeats,
    /// To every controller over `signet.live`. A doorbell: lost without harm.
    Live,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The broker has it.
    Confirmed,
    /// The queue is full (`reject-publish`).
    Refused,
    /// There is no such queue.
    Returned,
}

/// How a queue is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody else may consume it meanwhile; fails with [`BusError::InUse`] when somebody does.
    Exclusive,
    /// One of the consumers is active; another takes over when it goes.
    SingleActive,
}

/// Whether the bus can be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Connected.
    Up,
    /// The broker takes no publishes (memory or disk alarm).
    Blocked,
    /// Not connected; it is tried again for ever.
    Down,
}

/// Why the bus didn't do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// No connection, or it broke while waiting. Whether a publish arrived is not known.
    #[error("the broker is not reachable: {0}")]
    Down(String),
    /// The queue does not exist.
    #[error("the queue {0} does not exist")]
    NoQueue(String),
    /// Somebody else consumes the queue exclusively.
    #[error("the queue {0} is consumed by another")]
    InUse(String),
    /// The broker does not let us.
    #[error("the broker refuses: {0}")]
    Refused(String),
}

/// One message in a consumer's hands, to be acknowledged through the consumer it came from.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The message, unverified.
    pub envelope: Envelope,
    /// Grows with each message of this consumer.
    pub tag: u64,
    /// Whether it was handed out before.
    pub redelivered: bool,
}

/// A consumer. Dropping it gives back what was not acknowledged.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for the next message.
    ///
    /// # Errors
    /// Once it fails, the consumer is finished: make another.
    async fn next(&mut self) -> Result<Taken, BusError>;
    /// A message that is there already, without waiting.
    fn try_next(&mut self) -> Option<Taken>;
    /// Acknowledges this message and all before it.
    ///
    /// # Errors
    /// When the connection is gone; the messages then come again.
    async fn ack_through(&mut self, tag: u64) -> Result<(), BusError>;
    /// Acknowledges this message alone.
    ///
    /// # Errors
    /// As [`Consumer::ack_through`].
    async fn ack(&mut self, tag: u64) -> Result<(), BusError>;
    /// Refuses this message for good: `signet.reports` gives it to `signet.refused`, elsewhere it is dropped.
    ///
    /// # Errors
    /// As [`Consumer::ack_through`].
    async fn reject(&mut self, tag: u64) -> Result<(), BusError>;
    /// Gives this message back to the queue.
    ///
    /// # Errors
    /// As [`Consumer::ack_through`].
    async fn requeue(&mut self, tag: u64) -> Result<(), BusError>;
}

/// The bus. Every call fails fast with [`BusError::Down`] while there is no connection.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Follows the connection. A change from `Down` to `Up` means that consumers are to be made again.
    fn health(&self) -> watch::Receiver<Health>;
    /// Makes the queue and what it hangs on, or finds it. With other arguments than ours it is deleted and made again.
    ///
    /// # Errors
    /// [`BusError`].
    async fn declare(&self, queue: &Queue) -> Result<(), BusError>;
    /// Deletes the queue; succeeds when there is none.
    ///
    /// # Errors
    /// [`BusError`].
    async fn delete(&self, queue: &Queue) -> Result<(), BusError>;
    /// Messages waiting in the queue; `None` when there is no such queue.
    ///
    /// # Errors
    /// [`BusError`].
    async fn depth(&self, queue: &Queue) -> Result<Option<u64>, BusError>;
    /// Publishes and waits for the broker's word, 30 s at most. Call it many times at once: confirms are pipelined.
    ///
    /// # Errors
    /// [`BusError::Down`]: it may have arrived or not; [`BusError::Refused`]: its headers are too large.
    async fn publish(&self, to: &Address, envelope: Envelope) -> Result<Published, BusError>;
    /// Consumes a queue that exists.
    ///
    /// # Errors
    /// [`BusError::NoQueue`], [`BusError::InUse`] and the others.
    async fn consume(&self, queue: &Queue, mode: Mode, prefetch: u16) -> Result<Box<dyn Consumer>, BusError>;
}

/// Whether the headers are small enough for every broker.
fn check_headers(envelope: &Envelope) -> Result<(), BusError> {
    let length = envelope.payload_type.len() + envelope.keyid.len() + envelope.sig.len();
    if length > HEADERS_BYTES_MAX || envelope.payload_type.len() > usize::from(u8::MAX) {
        return Err(BusError::Refused(format!("headers of {length} bytes")));
    }
    Ok(())
}
