//! A broker for one test and buses to it.

use std::sync::Arc;
use std::time::Duration;

use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Retry, Role};
use signet_common::bus::memory::MemoryBus;
use signet_common::bus::topology::Topology;
use signet_common::bus::{Address, Bus, BusError, Consumer, Health, Published, Queue, Taken};
use signet_common::{AgentId, Envelope};
use signet_testkit::{ChaosProxy, Fault, Vhost, eventually, fresh_vhost};

/// Longer than anything here takes, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Long enough to believe that nothing comes.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

/// Which bus.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Memory,
    Amqp,
}

/// A broker of the test's own, behind a proxy where there is a connection to break.
pub(crate) enum Rig {
    Memory(MemoryBus),
    Amqp { vhost: Vhost, proxy: ChaosProxy, url: String, topology: Topology },
}

impl Kind {
    pub(crate) async fn rig(self) -> Rig {
        self.with(Topology::default()).await
    }

    pub(crate) async fn with(self, topology: Topology) -> Rig {
        match self {
            Self::Memory => Rig::Memory(MemoryBus::new(topology)),
            Self::Amqp => {
                let vhost = fresh_vhost().await;
                let (proxy, url) = ChaosProxy::in_front_of(vhost.url()).await;
                Rig::Amqp { vhost, proxy, url, topology }
            }
        }
    }
}

impl Rig {
    pub(crate) async fn controller(&self) -> Arc<dyn Bus> {
        self.bus(Role::Controller).await
    }

    pub(crate) async fn agent(&self) -> Arc<dyn Bus> {
        self.bus(Role::Agent).await
    }

    async fn bus(&self, role: Role) -> Arc<dyn Bus> {
        match self {
            Self::Memory(bus) => Arc::new(bus.clone()),
            Self::Amqp { url, topology, .. } => {
                let topology = topology.clone();
                let options =
                    AmqpOptions { retry: Retry::quick(), topology, ..AmqpOptions::new(url, "test", role) };
                let bus = AmqpBus::start(options).unwrap();
                up(&bus).await;
                Arc::new(bus)
            }
        }
    }

    pub(crate) async fn wipe(&self) {
        match self {
            Self::Memory(bus) => bus.wipe(),
            Self::Amqp { vhost, .. } => vhost.wipe().await,
        }
    }

    pub(crate) fn cut_off(&self) {
        match self {
            Self::Memory(bus) => bus.set_health(Health::Down),
            Self::Amqp { proxy, .. } => proxy.set(Fault::Refuse),
        }
    }

    pub(crate) fn reconnect(&self) {
        match self {
            Self::Memory(bus) => bus.set_health(Health::Up),
            Self::Amqp { proxy, .. } => proxy.set(Fault::Pass),
        }
    }
}

pub(crate) async fn up(bus: &dyn Bus) {
    let mut health = bus.health();
    tokio::time::timeout(SOON, health.wait_for(|h| *h == Health::Up)).await.unwrap().unwrap();
}

/// Makes a test of each function for each bus.
macro_rules! on_both {
    ($($module:ident::$name:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$module::$name(super::Kind::Memory).await;
            })+
        }
        mod amqp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$module::$name(super::Kind::Amqp).await;
            })+
        }
    };
}
pub(crate) use on_both;

/// The n-th agent.
pub(crate) fn agent(n: u32) -> AgentId {
    format!("{n:040x}").parse().unwrap()
}

/// A message that says `text`.
pub(crate) fn message(text: impl AsRef<[u8]>) -> Envelope {
    Envelope {
        payload_type: "application/vnd.signet.command.v1+json".into(),
        keyid: "ab".repeat(32),
        sig: "c2ln".into(),
        body: text.as_ref().to_vec().into(),
    }
}

/// What a message says.
pub(crate) fn text(taken: &Taken) -> String {
    String::from_utf8(taken.envelope.body.to_vec()).unwrap()
}

pub(crate) async fn publish(bus: &dyn Bus, to: &Address, what: impl AsRef<[u8]>) -> Published {
    bus.publish(to, message(what)).await.unwrap()
}

/// The next message's text.
pub(crate) async fn next(consumer: &mut dyn Consumer) -> Taken {
    tokio::time::timeout(SOON, consumer.next()).await.expect("a message").unwrap()
}

/// The consumer's end.
pub(crate) async fn end(consumer: &mut dyn Consumer) -> BusError {
    tokio::time::timeout(SOON, consumer.next()).await.expect("an end").expect_err("an end")
}

/// Waits a little for nothing.
pub(crate) async fn nothing(consumer: &mut dyn Consumer) {
    if let Ok(came) = tokio::time::timeout(QUIET, consumer.next()).await {
        panic!("{came:?} came");
    }
}

/// Waits until so many messages wait in the queue; RabbitMQ counts with a delay.
pub(crate) async fn depth(bus: &dyn Bus, queue: &Queue, wanted: Option<u64>) {
    let what = format!("a depth of {wanted:?}");
    eventually(SOON, &what, async || (bus.depth(queue).await.unwrap() == wanted).then_some(())).await;
}
