//! The bus inside one process, for `signet up` and for tests. It behaves as RabbitMQ does with the topology of
//! [`super::amqp`], and one test suite holds the two together.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::topology::Topology;
use super::{Address, Bus, BusError, Consumer, Health, Mode, Published, Queue, Taken, check_headers};
use crate::envelope::Envelope;

/// The in-process bus. A clone is the same bus.
#[derive(Debug, Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    topology: Topology,
    health: watch::Sender<Health>,
    broker: Mutex<Broker>,
}

#[derive(Debug, Default)]
struct Broker {
    queues: HashMap<Queue, Waiting>,
    /// Numbers messages and consumers.
    counter: u64,
}

/// One queue with its consumers.
#[derive(Debug)]
struct Waiting {
    rules: Rules,
    ready: VecDeque<Message>,
    ready_bytes: u64,
    /// In the order in which they came; the first is active.
    consumers: VecDeque<Seat>,
    /// Rung when a consumer may have something to do.
    bell: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Rules {
    ttl: Option<Duration>,
    bound: Bound,
    overflow: Overflow,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    Messages(u32),
    Bytes(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Overflow {
    RefusePublish,
    DropHead,
}

#[derive(Debug)]
struct Message {
    /// Its place in the order of publishing, kept when it is given back.
    place: u64,
    since: Instant,
    envelope: Envelope,
    redelivered: bool,
}

#[derive(Debug)]
struct Seat {
    id: u64,
    mode: Mode,
    prefetch: usize,
    unacked: BTreeMap<u64, Message>,
}

/// What becomes of a message that a consumer has done with.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Acked,
    Rejected,
    Returned,
}

impl Rules {
    fn of(queue: &Queue, topology: &Topology) -> Self {
        let rules = |ttl, bound, overflow| Self { ttl, bound, overflow };
        match queue {
            Queue::Agent(_) => rules(
                Some(topology.agent_ttl),
                Bound::Messages(topology.agent_length),
                Overflow::RefusePublish,
            ),
            Queue::Reports => rules(None, Bound::Bytes(topology.reports_bytes), Overflow::RefusePublish),
            Queue::Heartbeats => rules(
                Some(topology.heartbeat_ttl),
                Bound::Bytes(topology.heartbeats_bytes),
                Overflow::DropHead,
            ),
            Queue::Refused => rules(None, Bound::Bytes(topology.refused_bytes), Overflow::DropHead),
            Queue::Live(_) => rules(None, Bound::Messages(topology.live_length), Overflow::DropHead),
        }
    }
}

impl Waiting {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            ready: VecDeque::new(),
            ready_bytes: 0,
            consumers: VecDeque::new(),
            bell: Arc::default(),
        }
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.ready.pop_front()?;
        self.ready_bytes -= message.envelope.body.len() as u64;
        if self.ready.is_empty() {
            // An idle bus holds no memory for the busiest moment it has seen.
            self.ready = VecDeque::new();
        }
        Some(message)
    }

    fn expire(&mut self) {
        let Some(ttl) = self.rules.ttl else { return };
        let now = Instant::now();
        while self.ready.front().is_some_and(|m| now.duration_since(m.since) >= ttl) {
            self.pop();
        }
    }

    /// Full is what has reached its bound, as RabbitMQ counts: the last message may reach above it.
    fn full(&self) -> bool {
        match self.rules.bound {
            Bound::Messages(most) => self.ready.len() >= most as usize,
            Bound::Bytes(most) => self.ready_bytes >= most,
        }
    }

    fn push(&mut self, message: Message) -> Published {
        self.expire();
        while self.full() {
            if self.rules.overflow == Overflow::RefusePublish || self.pop().is_none() {
                return Published::Refused;
            }
        }
        self.insert(message);
        Published::Confirmed
    }

    fn insert(&mut self, message: Message) {
        self.ready_bytes += message.envelope.body.len() as u64;
        let at = self.ready.partition_point(|m| m.place < message.place);
        self.ready.insert(at, message);
        self.bell.notify_waiters();
    }

    fn take(&mut self, consumer: u64, tag: u64) -> Option<Taken> {
        self.expire();
        let active = self.consumers.front().filter(|s| s.id == consumer)?;
        if active.prefetch > 0 && active.unacked.len() >= active.prefetch {
            return None;
        }
        let message = self.pop()?;
        let taken = Taken { envelope: message.envelope.clone(), tag, redelivered: message.redelivered };
        if let Some(active) = self.consumers.front_mut() {
            active.unacked.insert(tag, message);
        }
        Some(taken)
    }

    fn give_back(&mut self, mut message: Message) {
        message.redelivered = true;
        self.insert(message);
    }

    /// Takes the consumer's seat away and gives back what it holds.
    fn leave(&mut self, consumer: u64) {
        let Some(at) = self.consumers.iter().position(|s| s.id == consumer) else { return };
        for message in self.consumers.remove(at).into_iter().flat_map(|s| s.unacked.into_values()) {
            self.give_back(message);
        }
        self.bell.notify_waiters();
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new(Topology::default())
    }
}

impl MemoryBus {
    /// An empty bus.
    #[must_use]
    pub fn new(topology: Topology) -> Self {
        let health = watch::Sender::new(Health::Up);
        Self { shared: Arc::new(Shared { topology, health, broker: Mutex::default() }) }
    }

    /// Loses all queues and messages, as a broker whose data directory was deleted. Consumers fail.
    pub fn wipe(&self) {
        for (_, queue) in self.shared.broker().queues.drain() {
            queue.bell.notify_waiters();
        }
    }

    /// Plays a broker that is away or takes no publishes. Consumers fail when it goes down.
    pub fn set_health(&self, health: Health) {
        let mut broker = self.shared.broker();
        self.shared.health.send_replace(health);
        if health == Health::Down {
            for queue in broker.queues.values_mut() {
                while let Some(id) = queue.consumers.front().map(|s| s.id) {
                    queue.leave(id);
                }
            }
            broker.queues.retain(|queue, _| !matches!(queue, Queue::Live(_)));
        }
    }
}

impl Shared {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        // No code panics while it holds the lock; if some did, the queues would still be whole.
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker, when it can be reached.
    fn reach(&self) -> Result<MutexGuard<'_, Broker>, BusError> {
        let broker = self.broker();
        match *self.health.borrow() {
            Health::Down => Err(BusError::Down("the in-process bus is down".into())),
            Health::Up | Health::Blocked => Ok(broker),
        }
    }
}

impl Broker {
    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn push(&mut self, queue: &Queue, envelope: Envelope) -> Published {
        let place = self.number();
        let message = Message { place, since: Instant::now(), envelope, redelivered: false };
        self.queues.get_mut(queue).map_or(Published::Returned, |q| q.push(message))
    }

    fn settle(&mut self, queue: &Queue, consumer: u64, tag: u64, verdict: Verdict) {
        let Some(waiting) = self.queues.get_mut(queue) else { return };
        let Some(seat) = waiting.consumers.iter_mut().find(|s| s.id == consumer) else { return };
        let Some(message) = seat.unacked.remove(&tag) else { return };
        // The prefetch has room again.
        waiting.bell.notify_waiters();
        match verdict {
            Verdict::Acked => {}
            Verdict::Returned => waiting.give_back(message),
            Verdict::Rejected if *queue == Queue::Reports => {
                self.push(&Queue::Refused, message.envelope);
            }
            Verdict::Rejected => {}
        }
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn declare(&self, queue: &Queue) -> Result<(), BusError> {
        let mut broker = self.shared.reach()?;
        let mut make = |queue: &Queue| {
            let rules = Rules::of(queue, &self.shared.topology);
            broker.queues.entry(queue.clone()).or_insert_with(|| Waiting::new(rules));
        };
        make(queue);
        if *queue == Queue::Reports {
            make(&Queue::Refused);
        }
        Ok(())
    }

    async fn delete(&self, queue: &Queue) -> Result<(), BusError> {
        if let Some(waiting) = self.shared.reach()?.queues.remove(queue) {
            waiting.bell.notify_waiters();
        }
        Ok(())
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<u64>, BusError> {
        Ok(self.shared.reach()?.queues.get_mut(queue).map(|waiting| {
            waiting.expire();
            waiting.ready.len() as u64
        }))
    }

    async fn publish(&self, to: &Address, envelope: Envelope) -> Result<Published, BusError> {
        check_headers(&envelope)?;
        let mut broker = self.shared.reach()?;
        if *self.shared.health.borrow() == Health::Blocked {
            return Err(BusError::Down("the in-process bus takes no publishes".into()));
        }
        Ok(match to {
            Address::Agent(id) => broker.push(&Queue::Agent(id.clone()), envelope),
            Address::Reports => broker.push(&Queue::Reports, envelope),
            Address::Heartbeats => broker.push(&Queue::Heartbeats, envelope),
            Address::Live => {
                let live: Vec<Queue> =
                    broker.queues.keys().filter(|q| matches!(q, Queue::Live(_))).cloned().collect();
                for queue in live {
                    broker.push(&queue, envelope.clone());
                }
                Published::Confirmed
            }
        })
    }

    async fn consume(&self, queue: &Queue, mode: Mode, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        let mut broker = self.shared.reach()?;
        let id = broker.number();
        let waiting = broker.queues.get_mut(queue).ok_or_else(|| BusError::NoQueue(queue.name()))?;
        let taken = match mode {
            Mode::Exclusive => !waiting.consumers.is_empty(),
            Mode::SingleActive => waiting.consumers.iter().any(|s| s.mode == Mode::Exclusive),
        };
        if taken {
            return Err(BusError::InUse(queue.name()));
        }
        waiting.consumers.push_back(Seat { id, mode, prefetch: prefetch.into(), unacked: BTreeMap::new() });
        let bell = waiting.bell.clone();
        Ok(Box::new(MemoryConsumer {
            shared: self.shared.clone(),
            queue: queue.clone(),
            id,
            bell,
            last_tag: 0,
        }))
    }
}

struct MemoryConsumer {
    shared: Arc<Shared>,
    queue: Queue,
    id: u64,
    bell: Arc<Notify>,
    last_tag: u64,
}

impl MemoryConsumer {
    /// A message if there is one, an error when this consumer is finished.
    fn poll(&mut self) -> Result<Option<Taken>, BusError> {
        let mut broker = self.shared.reach()?;
        let seated = |w: &&mut Waiting| w.consumers.iter().any(|s| s.id == self.id);
        let waiting = broker.queues.get_mut(&self.queue).filter(seated);
        let waiting = waiting.ok_or_else(|| BusError::NoQueue(self.queue.name()))?;
        let taken = waiting.take(self.id, self.last_tag + 1);
        if let Some(taken) = &taken {
            self.last_tag = taken.tag;
        }
        Ok(taken)
    }

    /// Settling is in vain, and an error, once the seat is lost.
    fn settle(&self, tags: impl FnOnce(&Seat) -> Vec<u64>, verdict: Verdict) -> Result<(), BusError> {
        let mut broker = self.shared.reach()?;
        let waiting = broker.queues.get(&self.queue).ok_or_else(|| BusError::NoQueue(self.queue.name()))?;
        let seat = waiting.consumers.iter().find(|s| s.id == self.id);
        let tags = tags(seat.ok_or_else(|| BusError::Down("the consumer is finished".into()))?);
        for tag in tags {
            broker.settle(&self.queue, self.id, tag, verdict);
        }
        Ok(())
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn next(&mut self) -> Result<Taken, BusError> {
        let bell = self.bell.clone();
        loop {
            let mut rung = pin!(bell.notified());
            // From here on no ringing is missed, so looking afterwards is enough.
            rung.as_mut().enable();
            if let Some(taken) = self.poll()? {
                return Ok(taken);
            }
            rung.await;
        }
    }

    fn try_next(&mut self) -> Option<Taken> {
        self.poll().ok().flatten()
    }

    async fn ack_through(&mut self, tag: u64) -> Result<(), BusError> {
        self.settle(|seat| seat.unacked.range(..=tag).map(|(t, _)| *t).collect(), Verdict::Acked)
    }

    async fn ack(&mut self, tag: u64) -> Result<(), BusError> {
        self.settle(|_| vec![tag], Verdict::Acked)
    }

    async fn reject(&mut self, tag: u64) -> Result<(), BusError> {
        self.settle(|_| vec![tag], Verdict::Rejected)
    }

    async fn requeue(&mut self, tag: u64) -> Result<(), BusError> {
        self.settle(|_| vec![tag], Verdict::Returned)
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        let mut broker = self.shared.broker();
        let Some(waiting) = broker.queues.get_mut(&self.queue) else { return };
        let was_here = waiting.consumers.iter().any(|s| s.id == self.id);
        waiting.leave(self.id);
        if was_here && waiting.consumers.is_empty() && matches!(self.queue, Queue::Live(_)) {
            broker.queues.remove(&self.queue);
        }
    }
}
