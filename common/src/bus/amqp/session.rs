//! What one successful connect gives: the connections and the channels on them. When anything breaks, all of it is
//! dropped and made again.

use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Confirmation};
use tokio_util::sync::CancellationToken;

use super::consumer::{AmqpConsumer, Closing};
use super::error::{is_missing, on_queue};
use super::link::Link;
use super::pool::Pool;
use super::topology::{Route, declare, route};
use super::{Role, envelope};
use crate::bus::topology::Topology;
use crate::bus::{Address, BusError, Consumer, Mode, Published, Queue};
use crate::envelope::Envelope;
use crate::fault::{self, Point};
use crate::limits::{
    CONFIRM_SECONDS_MAX, CONFIRMS_OUTSTANDING_MAX, CONSUME_SECONDS_MAX, QUEUE_OPERATIONS_MAX,
};

pub(super) struct Session {
    publishing: Pool,
    /// On the consuming connection: an alarm of the broker blocks only those that publish, and `signet.live` queues
    /// belong to the connection that declared them.
    queues: Pool,
    consuming: Arc<Link>,
    closing: Arc<Closing>,
}

impl Session {
    pub(super) async fn open(
        uri: &AMQPUri,
        name: &str,
        role: Role,
        tls: &OwnedTLSConfig,
    ) -> Result<Self, BusError> {
        let broken = CancellationToken::new();
        let consuming = Arc::new(Link::open(uri.clone(), name, tls, broken.clone()).await?);
        let publishing = match role {
            Role::Agent => consuming.clone(),
            Role::Controller => {
                let name = format!("{name} publishing");
                Arc::new(Link::open(uri.clone(), &name, tls, broken).await?)
            }
        };
        Ok(Self {
            publishing: Pool::new(publishing, CONFIRMS_OUTSTANDING_MAX, true),
            queues: Pool::new(consuming.clone(), QUEUE_OPERATIONS_MAX, false),
            consuming,
            closing: Arc::default(),
        })
    }

    /// Whether the broker takes no publishes.
    pub(super) fn blocked(&self) -> bool {
        self.publishing.link().blocked()
    }

    /// Whether both connections stand.
    pub(super) fn check(&self) -> bool {
        self.publishing.link().check() && self.consuming.check()
    }

    pub(super) fn broken(&self) -> &CancellationToken {
        self.consuming.broken()
    }

    /// Gives everything up: consumers and whoever waits for a confirm fail now.
    pub(super) async fn close(&self) {
        self.consuming.give_up();
        tokio::join!(self.publishing.link().close(), self.consuming.close());
    }

    pub(super) async fn publish(&self, to: &Address, message: Envelope) -> Result<Published, BusError> {
        if self.blocked() {
            return Err(BusError::Down("the broker takes no publishes: memory or disk alarm".into()));
        }
        let way = route(to);
        let properties = envelope::properties(&message, way.persistent)?;
        let publish =
            self.publishing.with(async |channel| confirmed(channel, to, &way, &message, properties).await);
        let wait = Duration::from_secs(CONFIRM_SECONDS_MAX);
        let done = tokio::select! {
            () = self.broken().cancelled() => return Err(BusError::Down("the connection broke".into())),
            done = tokio::time::timeout(wait, publish) => done,
        };
        let Ok(done) = done else {
            if !self.blocked() {
                // A broker that neither confirms nor says why is as good as none.
                self.publishing.link().give_up();
            }
            return Err(BusError::Down(format!("no confirm within {CONFIRM_SECONDS_MAX} s")));
        };
        match done? {
            Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => Ok(Published::Confirmed),
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => Ok(Published::Returned),
            Ok(Confirmation::Nack(None)) => Ok(Published::Refused),
            // The exchange is missing: the broker was wiped. Without listeners a doorbell is fine.
            Err(error) if is_missing(&error) && way.mandatory => Ok(Published::Returned),
            Err(error) if is_missing(&error) => Ok(Published::Confirmed),
            Err(error) => Err(on_queue(&error, &way.key)),
        }
    }

    pub(super) async fn declare(&self, queue: &Queue, topology: &Topology) -> Result<(), BusError> {
        declare(&self.queues, queue, topology).await
    }

    pub(super) async fn delete(&self, queue: &Queue) -> Result<(), BusError> {
        let name = queue.name();
        let delete = async |channel: &Channel| {
            channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await
        };
        match self.queues.with(delete).await? {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(on_queue(&error, &name)),
        }
    }

    pub(super) async fn depth(&self, queue: &Queue) -> Result<Option<u64>, BusError> {
        let name = queue.name();
        let count = async |channel: &Channel| {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await
        };
        match self.queues.with(count).await? {
            Ok(queue) => Ok(Some(queue.message_count().into())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(on_queue(&error, &name)),
        }
    }

    pub(super) async fn consume(
        &self,
        queue: &Queue,
        mode: Mode,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, BusError> {
        let (link, closing) = (self.consuming.clone(), self.closing.clone());
        let start = AmqpConsumer::start(link, closing, queue.name(), mode, prefetch);
        if let Ok(started) = tokio::time::timeout(Duration::from_secs(CONSUME_SECONDS_MAX), start).await {
            return Ok(Box::new(started?));
        }
        let mut error = BusError::Down(format!("no answer within {CONSUME_SECONDS_MAX} s"));
        if *queue == Queue::Reports {
            // RabbitMQ 3.10 brings a quorum queue back without a leader when it was killed within a second of the
            // declaration, and then nothing can be published to it or consumed from it until it is deleted.
            tracing::warn!(queue = queue.name(), "the queue gives no answer and is deleted");
            self.delete(queue).await?;
            error = BusError::NoQueue(queue.name());
        }
        // lapin ends the connection itself when an answer comes that nobody waits for any more.
        self.consuming.give_up();
        Err(error)
    }
}

async fn confirmed(
    channel: &Channel,
    to: &Address,
    way: &Route,
    message: &Envelope,
    properties: BasicProperties,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: way.mandatory, ..BasicPublishOptions::default() };
    let (exchange, key) = (way.exchange.into(), way.key.as_str().into());
    let confirm = channel.basic_publish(exchange, key, options, &message.body, properties).await?;
    if matches!(to, Address::Agent(_)) {
        fault::hit(Point::ControllerAfterPublish);
    }
    confirm.await
}
