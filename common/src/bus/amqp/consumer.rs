//! A consumer: one channel with one subscription.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use tokio::task::JoinHandle;

use super::envelope::envelope;
use super::error::on_queue;
use super::link::Link;
use crate::bus::{BusError, Consumer, Mode, Taken};

/// Channels of dropped consumers that are being closed. A new consumer waits for them, so that an exclusive one is
/// not in its own predecessor's way.
#[derive(Default)]
pub(super) struct Closing(Mutex<Vec<JoinHandle<()>>>);

impl Closing {
    fn add(&self, task: JoinHandle<()>) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|t| !t.is_finished());
        tasks.push(task);
    }

    async fn done(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::debug!(%error, "a consumer's channel was not closed properly");
            }
        }
    }
}

pub(super) struct AmqpConsumer {
    link: Arc<Link>,
    closing: Arc<Closing>,
    runtime: tokio::runtime::Handle,
    channel: Channel,
    deliveries: lapin::Consumer,
    queue: String,
    /// Taken and not settled yet. The broker closes the channel when a tag is settled twice.
    held: BTreeSet<u64>,
    /// Why nothing more will come.
    ended: Option<BusError>,
}

/// A channel that is ready for a subscription.
pub(super) struct Prepared {
    link: Arc<Link>,
    closing: Arc<Closing>,
    queue: String,
    channel: Channel,
}

impl Prepared {
    /// Subscribes.
    pub(super) async fn start(self, mode: Mode) -> Result<AmqpConsumer, BusError> {
        let Self { link, closing, queue, channel } = self;
        let options =
            BasicConsumeOptions { exclusive: mode == Mode::Exclusive, ..BasicConsumeOptions::default() };
        let subscribe =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let deliveries = subscribe.await.map_err(|error| {
            link.check();
            on_queue(&error, &queue)
        })?;
        let runtime = tokio::runtime::Handle::current();
        let held = BTreeSet::new();
        Ok(AmqpConsumer { link, closing, runtime, channel, deliveries, queue, held, ended: None })
    }
}

impl AmqpConsumer {
    /// Everything before the subscription: the queue itself has no part in it.
    pub(super) async fn prepare(
        link: Arc<Link>,
        closing: Arc<Closing>,
        queue: String,
        prefetch: u16,
    ) -> Result<Prepared, BusError> {
        closing.done().await;
        let channel = link.open_channel().await?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(|error| {
            link.check();
            on_queue(&error, &queue)
        })?;
        Ok(Prepared { link, closing, queue, channel })
    }

    /// Makes something of what lapin's stream gave; it says only once why it has ended.
    fn take(&mut self, item: Option<lapin::Result<Delivery>>) -> Result<Taken, BusError> {
        let error = match item {
            Some(Ok(delivery)) => {
                let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
                self.held.insert(tag);
                return Ok(Taken { envelope: envelope(delivery), tag, redelivered });
            }
            Some(Err(error)) => self.fault(&error),
            // The broker has cancelled the subscription: the queue was deleted.
            None if self.link.check() => BusError::NoQueue(self.queue.clone()),
            None => BusError::Down("the connection broke".into()),
        };
        Err(self.ended.insert(error).clone())
    }

    fn fault(&self, error: &lapin::Error) -> BusError {
        self.link.check();
        on_queue(error, &self.queue)
    }

    /// lapin answers once the frame is written, which a connection that was given up never does.
    async fn settled(&self, done: impl Future<Output = lapin::Result<()>>) -> Result<(), BusError> {
        tokio::select! {
            done = done => done.map_err(|e| self.fault(&e)),
            () = self.link.broken().cancelled() => Err(BusError::Down("the connection broke".into())),
        }
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn next(&mut self) -> Result<Taken, BusError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let item = tokio::select! {
            biased;
            () = self.link.broken().cancelled() => return Err(BusError::Down("the connection broke".into())),
            item = self.deliveries.next() => item,
        };
        self.take(item)
    }

    fn try_next(&mut self) -> Option<Taken> {
        if self.ended.is_some() {
            return None;
        }
        let item = self.deliveries.next().now_or_never()?;
        self.take(item).ok()
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BusError> {
        let later = self.held.split_off(&(tag + 1));
        let Some(last) = std::mem::replace(&mut self.held, later).pop_last() else { return Ok(()) };
        self.settled(self.channel.basic_ack(last, BasicAckOptions { multiple: true })).await
    }

    async fn ack(&mut self, tag: u64) -> Result<(), BusError> {
        if !self.held.remove(&tag) {
            return Ok(());
        }
        self.settled(self.channel.basic_ack(tag, BasicAckOptions { multiple: false })).await
    }

    async fn reject(&mut self, tag: u64) -> Result<(), BusError> {
        if !self.held.remove(&tag) {
            return Ok(());
        }
        self.settled(self.channel.basic_reject(tag, BasicRejectOptions { requeue: false })).await
    }

    async fn requeue(&mut self, tag: u64) -> Result<(), BusError> {
        if !self.held.remove(&tag) {
            return Ok(());
        }
        let back = BasicNackOptions { multiple: false, requeue: true };
        self.settled(self.channel.basic_nack(tag, back)).await
    }
}

impl Drop for AmqpConsumer {
    fn drop(&mut self) {
        // Closing the channel gives back what was not acknowledged.
        let channel = self.channel.clone();
        let close = async move {
            if let Err(error) = channel.close(200, "OK".into()).await {
                tracing::trace!(%error, "the consumer's channel was closed before");
            }
        };
        self.closing.add(self.runtime.spawn(close));
    }
}
