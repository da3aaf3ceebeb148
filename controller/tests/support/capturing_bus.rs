//! The true bus, and everything that was published on it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use signet_common::Envelope;
use signet_common::bus::{Address, Bus, BusError, Consumer, Health, Mode, Published, Queue};
use tokio::sync::watch;

pub struct CapturingBus {
    inner: Arc<dyn Bus>,
    seen: Mutex<Vec<u8>>,
}

impl CapturingBus {
    pub fn new(inner: Arc<dyn Bus>) -> Self {
        Self { inner, seen: Mutex::default() }
    }

    /// The bodies of all messages so far.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

#[async_trait]
impl Bus for CapturingBus {
    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }

    async fn declare(&self, queue: &Queue) -> Result<(), BusError> {
        self.inner.declare(queue).await
    }

    async fn delete(&self, queue: &Queue) -> Result<(), BusError> {
        self.inner.delete(queue).await
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<u64>, BusError> {
        self.inner.depth(queue).await
    }

    async fn publish(&self, to: &Address, envelope: Envelope) -> Result<Published, BusError> {
        self.seen.lock().unwrap().extend_from_slice(&envelope.body);
        self.inner.publish(to, envelope).await
    }

    async fn consume(&self, queue: &Queue, mode: Mode, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        self.inner.consume(queue, mode, prefetch).await
    }
}
