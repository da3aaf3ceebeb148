//! Every exchange and queue on the broker, with its arguments and their reasons. The only place that declares any.
//!
//! Everything is fixed by arguments, not by policies: a policy needs the management API, and an argument that has
//! changed makes the broker answer 406, upon which the queue is deleted and declared anew. The journals and the
//! database fill it again.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};

use super::error::{is_other, on_queue};
use super::pool::Pool;
use crate::bus::topology::Topology;
use crate::bus::{Address, BusError, Queue};

/// The direct exchange from agents to controllers. Agents may write to this and to nothing else.
const UP: &str = "signet.up";
/// The fanout exchange between controllers.
const LIVE: &str = "signet.live";
const REPORTS_KEY: &str = "reports";
const HEARTBEATS_KEY: &str = "heartbeats";

/// Where and how a message is published.
pub(super) struct Route {
    pub(super) exchange: &'static str,
    pub(super) key: String,
    /// Whether the broker is to return what no queue takes.
    pub(super) mandatory: bool,
    /// Whether the broker is to write it to disk.
    pub(super) persistent: bool,
}

/// The way to an address.
pub(super) fn route(to: &Address) -> Route {
    let up = |key: &str, persistent| Route { exchange: UP, key: key.into(), mandatory: true, persistent };
    match to {
        // Over the default exchange: no binding for each agent. Not persistent: the database has it.
        Address::Agent(id) => {
            Route { exchange: "", key: Queue::Agent(id.clone()).name(), mandatory: true, persistent: false }
        }
        Address::Reports => up(REPORTS_KEY, true),
        Address::Heartbeats => up(HEARTBEATS_KEY, false),
        // A doorbell may ring in an empty house.
        Address::Live => Route { exchange: LIVE, key: String::new(), mandatory: false, persistent: false },
    }
}

/// One queue with what it hangs on.
struct Plan {
    queue: Queue,
    options: QueueDeclareOptions,
    arguments: FieldTable,
    exchange: Option<(&'static str, ExchangeKind, &'static str)>,
}

/// Arguments under their AMQP names.
#[derive(Default)]
struct Arguments(FieldTable);

impl Arguments {
    fn set(mut self, name: &str, value: AMQPValue) -> Self {
        self.0.insert(name.into(), value);
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        self.set(name, AMQPValue::LongString(LongString::from(value)))
    }

    fn number(self, name: &str, value: u64) -> Self {
        self.set(name, AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    /// Named, because a vhost may have another default.
    fn classic() -> Self {
        Self::default().text("x-queue-type", "classic")
    }

    /// Replicated and on disk before it is confirmed.
    fn quorum() -> Self {
        Self::default().text("x-queue-type", "quorum")
    }

    fn ttl(self, ttl: Duration) -> Self {
        self.number("x-message-ttl", u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// The publisher hears `nack` when the queue is full, instead of losing the oldest.
    fn reject_publish(self) -> Self {
        self.text("x-overflow", "reject-publish")
    }

    /// The oldest goes when the queue is full: only the newest word counts.
    fn drop_head(self) -> Self {
        self.text("x-overflow", "drop-head")
    }

    /// One controller takes in, in order; another takes over when it goes.
    fn single_active(self) -> Self {
        self.set("x-single-active-consumer", AMQPValue::Boolean(true))
    }
}

impl Plan {
    fn of(queue: &Queue, t: &Topology) -> Self {
        // Durable means that the queue outlives a restart of the broker; its messages do only when persistent.
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let (options, arguments, exchange) = match queue {
            // No dead letters: what expires here is sent again from the database.
            Queue::Agent(_) => (
                durable,
                Arguments::classic()
                    .ttl(t.agent_ttl)
                    .number("x-max-length", t.agent_length.into())
                    .reject_publish(),
                None,
            ),
            Queue::Reports => (
                durable,
                Arguments::quorum()
                    .number("x-max-length-bytes", t.reports_bytes)
                    .reject_publish()
                    // Explicit and high: it is 20 in RabbitMQ 4, and each take-over counts as a delivery.
                    .number("x-delivery-limit", t.reports_delivery_limit.into())
                    // What fails verification is kept for a person to look at. Over the default exchange.
                    .text("x-dead-letter-exchange", "")
                    .text("x-dead-letter-routing-key", &Queue::Refused.name())
                    .single_active(),
                Some((UP, ExchangeKind::Direct, REPORTS_KEY)),
            ),
            Queue::Heartbeats => (
                durable,
                Arguments::classic()
                    .ttl(t.heartbeat_ttl)
                    .number("x-max-length-bytes", t.heartbeats_bytes)
                    .drop_head()
                    .single_active(),
                Some((UP, ExchangeKind::Direct, HEARTBEATS_KEY)),
            ),
            Queue::Refused => (
                durable,
                Arguments::classic().number("x-max-length-bytes", t.refused_bytes).drop_head(),
                None,
            ),
            // Exclusive and gone with its consumer; RabbitMQ 4.3 refuses transient queues that are not exclusive.
            Queue::Live(_) => (
                QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() },
                Arguments::classic().number("x-max-length", t.live_length.into()).drop_head(),
                Some((LIVE, ExchangeKind::Fanout, "")),
            ),
        };
        Self { queue: queue.clone(), options, arguments: arguments.0, exchange }
    }

    fn name(&self) -> ShortString {
        self.queue.name().into()
    }

    async fn declare_queue(&self, channel: &Channel) -> lapin::Result<()> {
        channel.queue_declare(self.name(), self.options, self.arguments.clone()).await.map(drop)
    }

    async fn delete_queue(&self, channel: &Channel) -> lapin::Result<()> {
        channel.queue_delete(self.name(), QueueDeleteOptions::default()).await.map(drop)
    }

    async fn declare_exchange(&self, channel: &Channel) -> lapin::Result<()> {
        let Some((exchange, kind, key)) = &self.exchange else { return Ok(()) };
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default;
        channel.exchange_declare((*exchange).into(), kind.clone(), durable, none()).await?;
        let bind = QueueBindOptions::default();
        channel.queue_bind(self.name(), (*exchange).into(), (*key).into(), bind, none()).await
    }

    async fn delete_exchange(&self, channel: &Channel) -> lapin::Result<()> {
        let Some((exchange, ..)) = &self.exchange else { return Ok(()) };
        channel.exchange_delete((*exchange).into(), ExchangeDeleteOptions::default()).await
    }
}

/// Declares a queue and what it hangs on. What is there with other arguments is deleted first.
pub(super) async fn declare(channels: &Pool, queue: &Queue, topology: &Topology) -> Result<(), BusError> {
    if *queue == Queue::Reports {
        // Without it the broker would drop what is rejected.
        declare_one(channels, &Plan::of(&Queue::Refused, topology)).await?;
    }
    declare_one(channels, &Plan::of(queue, topology)).await
}

async fn declare_one(channels: &Pool, plan: &Plan) -> Result<(), BusError> {
    let name = plan.queue.name();
    let fault = |e: lapin::Error| on_queue(&e, &name);
    let declare = async |channel: &Channel| plan.declare_queue(channel).await;
    match channels.with(declare).await? {
        Err(error) if is_other(&error) => {
            tracing::warn!(queue = name, %error, "the queue has other arguments and is made anew");
            channels.with(async |channel| plan.delete_queue(channel).await).await?.map_err(fault)?;
            channels.with(declare).await?.map_err(fault)?;
        }
        other => other.map_err(fault)?,
    }
    let declare = async |channel: &Channel| plan.declare_exchange(channel).await;
    match channels.with(declare).await? {
        Err(error) if is_other(&error) => {
            tracing::warn!(queue = name, %error, "the exchange is of another kind and is made anew");
            channels.with(async |channel| plan.delete_exchange(channel).await).await?.map_err(fault)?;
            channels.with(declare).await?.map_err(fault)
        }
        other => other.map_err(fault),
    }
}
