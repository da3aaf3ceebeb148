//! What one successful connect gives: the connections and the channels on them. When anything breaks, all of it is
//! dropped and made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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
    CONFIRM_SECONDS_MAX, CONFIRMS_OUTSTANDING_MAX, CONSUME_SECONDS_MAX, LEADERLESS_TRIES,
    QUEUE_OPERATIONS_MAX, QUEUE_SECONDS_MAX,
};

pub(super) struct Session {
    publishing: Pool,
    /// On the consuming connection: an alarm of the broker blocks only those that publish, and `signet.live` queues
    /// belong to the connection that declared them.
    queues: Pool,
    consuming: Arc<Link>,
    closing: Arc<Closing>,
    /// How often in a row `signet.reports` gave a consumer no answer, on this connection and those before.
    unanswered: Arc<AtomicU32>,
}

impl Session {
    pub(super) async fn open(
        uri: &AMQPUri,
        name: &str,
        role: Role,
        tls: &OwnedTLSConfig,
        unanswered: Arc<AtomicU32>,
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
            unanswered,
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
        self.answered(QUEUE_SECONDS_MAX, declare(&self.queues, queue, topology)).await
    }

    pub(super) async fn delete(&self, queue: &Queue) -> Result<(), BusError> {
        let name = queue.name();
        let delete = async |channel: &Channel| {
            channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default()).await
        };
        match self.answered(QUEUE_SECONDS_MAX, self.queues.with(delete)).await? {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(on_queue(&error, &name)),
        }
    }

    pub(super) async fn depth(&self, queue: &Queue) -> Result<Option<u64>, BusError> {
        Ok(self.look(queue).await?.map(|queue| queue.message_count().into()))
    }

    /// What the broker shows of a queue; `None` when there is none.
    async fn look(&self, queue: &Queue) -> Result<Option<lapin::Queue>, BusError> {
        let name = queue.name();
        let look = async |channel: &Channel| {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await
        };
        match self.answered(QUEUE_SECONDS_MAX, self.queues.with(look)).await? {
            Ok(queue) => Ok(Some(queue)),
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
        let prepared = AmqpConsumer::prepare(link, closing, queue.name(), prefetch);
        let prepared = self.answered(QUEUE_SECONDS_MAX, prepared).await?;
        let patience = Duration::from_secs(CONSUME_SECONDS_MAX);
        if let Ok(started) = tokio::time::timeout(patience, prepared.start(mode)).await {
            if *queue == Queue::Reports {
                self.unanswered.store(0, Ordering::Relaxed);
            }
            return Ok(Box::new(started?));
        }
        let made_anew = *queue == Queue::Reports && self.give_up_leaderless().await?;
        // lapin ends the connection itself when an answer comes that nobody waits for any more.
        self.consuming.give_up();
        Err(match made_anew {
            true => BusError::NoQueue(queue.name()),
            false => BusError::Down(format!("no answer within {CONSUME_SECONDS_MAX} s")),
        })
    }

    /// RabbitMQ 3.10 brings a quorum queue back without a leader when it was killed within a second of the declaration,
    /// and then nothing can be published to it or consumed from it until it is deleted. A broker that is only slow
    /// should not lose its reports: so this takes several tries, each on a connection of its own, and a queue that shows
    /// neither messages nor consumers. That proves nothing, a leader that does not answer shows the same; but what such
    /// a queue held is in the agents' journals, and is asked for again.
    async fn give_up_leaderless(&self) -> Result<bool, BusError> {
        let tries = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        let shown =
            self.look(&Queue::Reports).await?.map(|queue| (queue.message_count(), queue.consumer_count()));
        tracing::warn!(tries, ?shown, "signet.reports gives a consumer no answer");
        if tries < LEADERLESS_TRIES || shown != Some((0, 0)) {
            return Ok(false);
        }
        tracing::error!("signet.reports has no leader and is made anew");
        self.unanswered.store(0, Ordering::Relaxed);
        self.delete(&Queue::Reports).await?;
        Ok(true)
    }

    /// Waits for the broker for a bounded time. One that does not answer is as good as none.
    async fn answered<T>(
        &self,
        seconds: u64,
        operation: impl Future<Output = Result<T, BusError>>,
    ) -> Result<T, BusError> {
        let answer = tokio::time::timeout(Duration::from_secs(seconds), operation).await;
        answer.unwrap_or_else(|_| {
            self.consuming.give_up();
            Err(BusError::Down(format!("no answer within {seconds} s")))
        })
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
