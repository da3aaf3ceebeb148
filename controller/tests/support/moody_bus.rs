//! A bus that a test takes away, or that declares nothing, and gives back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use signet_common::Envelope;
use signet_common::bus::{Address, Bus, BusError, Consumer, Health, Mode, Published, Queue};
use tokio::sync::watch;

/// The true bus, as long as the test lets it through. What consumes already goes on.
pub struct MoodyBus {
    inner: Arc<dyn Bus>,
    health: watch::Sender<Health>,
    /// Whether queues can't be declared although the bus is up.
    pub declares_nothing: AtomicBool,
}

impl MoodyBus {
    pub fn new(inner: Arc<dyn Bus>) -> Self {
        Self { inner, health: watch::Sender::new(Health::Up), declares_nothing: AtomicBool::new(false) }
    }

    /// Takes it away, or gives it back.
    pub fn set(&self, health: Health) {
        self.health.send_replace(health);
    }

    fn up(&self) -> Result<&dyn Bus, BusError> {
        match *self.health.borrow() {
            Health::Up => Ok(&*self.inner),
            _ => Err(BusError::Down("the test took it away".into())),
        }
    }
}

#[async_trait]
impl Bus for MoodyBus {
    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    async fn declare(&self, queue: &Queue) -> Result<(), BusError> {
        if self.declares_nothing.load(Ordering::Relaxed) {
            return Err(BusError::Refused("the test lets nothing be declared".into()));
        }
        self.up()?.declare(queue).await
    }

    async fn delete(&self, queue: &Queue) -> Result<(), BusError> {
        self.up()?.delete(queue).await
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<u64>, BusError> {
        self.up()?.depth(queue).await
    }

    async fn publish(&self, to: &Address, envelope: Envelope) -> Result<Published, BusError> {
        self.up()?.publish(to, envelope).await
    }

    async fn consume(&self, queue: &Queue, mode: Mode, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        self.up()?.consume(queue, mode, prefetch).await
    }
}
