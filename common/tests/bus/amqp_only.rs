//! What only a broker over a network can do, or fail to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use signet_common::bus::amqp::{AmqpBus, AmqpOptions, BadOptions, Retry, Role};
use signet_common::bus::topology::Topology;
use signet_common::bus::{Address, Bus, BusError, Health, Mode, Published, Queue};
use signet_common::tls::{Identity, TlsFiles};
use signet_testkit::{ChaosProxy, Fault, PrivateServices, Services, eventually, fresh_vhost};

use crate::rig::{Kind, QUIET, Rig, SOON, agent, depth, message, next, publish, text, up};

fn start(url: &str, role: Role) -> AmqpBus {
    AmqpBus::start(AmqpOptions { retry: Retry::quick(), ..AmqpOptions::new(url, "test", role) }).unwrap()
}

async fn becomes(bus: &AmqpBus, wanted: Health) {
    let mut health = bus.health();
    let wait = tokio::time::timeout(SOON, health.wait_for(|h| *h == wanted));
    wait.await.unwrap_or_else(|_| panic!("not {wanted:?}")).unwrap();
}

#[tokio::test]
async fn amqp_agents_declare_and_delete_nothing() {
    let host = Kind::Amqp.rig().await.agent().await;
    for refused in [host.declare(&Queue::Reports).await, host.delete(&Queue::Reports).await] {
        assert!(matches!(refused, Err(BusError::Refused(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn amqp_changed_arguments_make_the_queue_anew() {
    let rig = Kind::Amqp.rig().await;
    let controller = rig.controller().await;
    let queues = [Queue::Agent(agent(1)), Queue::Reports, Queue::Heartbeats, Queue::Refused];
    for queue in &queues {
        controller.declare(queue).await.unwrap();
    }
    assert_eq!(publish(&*controller, &Address::Reports, "lost").await, Published::Confirmed);
    assert_eq!(publish(&*controller, &Address::Agent(agent(1)), "lost").await, Published::Confirmed);

    let Rig::Amqp { url, .. } = &rig else { unreachable!() };
    let topology = Topology {
        agent_length: 1,
        heartbeat_ttl: Duration::from_secs(1),
        reports_bytes: 1_000_000,
        refused_bytes: 1_000,
        ..Topology::default()
    };
    let options =
        AmqpOptions { retry: Retry::quick(), topology, ..AmqpOptions::new(url, "new", Role::Controller) };
    let newer = AmqpBus::start(options).unwrap();
    up(&newer).await;
    for queue in &queues {
        newer.declare(queue).await.unwrap();
        depth(&newer, queue, Some(0)).await;
    }
    assert_eq!(publish(&newer, &Address::Agent(agent(1)), "a").await, Published::Confirmed);
    assert_eq!(publish(&newer, &Address::Agent(agent(1)), "b").await, Published::Refused);
    assert_eq!(publish(&newer, &Address::Reports, "c").await, Published::Confirmed);
}

#[tokio::test]
async fn amqp_wrong_credentials_are_told_from_a_broker_that_is_away() {
    let vhost = fresh_vhost().await;
    let wrong = vhost.url().replacen("signet:signet@", "signet:wrong@", 1);
    let missing = vhost.url().replace(vhost.name(), "no-such-vhost");
    for url in [&wrong, &missing] {
        let bus = start(url, Role::Agent);
        eventually(SOON, "a refusal", async || match bus.depth(&Queue::Reports).await {
            Err(BusError::Refused(_)) => Some(()),
            Err(BusError::Down(_)) => None,
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(*bus.health().borrow(), Health::Down);
        bus.reconnect_with(vhost.url()).unwrap();
        up(&bus).await;
        assert_eq!(bus.depth(&Queue::Reports).await.unwrap(), None);
    }
    let malformed = AmqpBus::start(AmqpOptions::new("http://x", "test", Role::Agent));
    assert!(matches!(malformed.err(), Some(BadOptions::Url(_))));
}

#[tokio::test]
async fn amqp_publishes_in_flight_fail_as_soon_as_the_connection_does() {
    let vhost = fresh_vhost().await;
    let (proxy, url) = ChaosProxy::in_front_of(vhost.url()).await;
    let bus = Arc::new(start(&url, Role::Controller));
    up(&*bus).await;
    bus.declare(&Queue::Reports).await.unwrap();
    proxy.set(Fault::Stall);
    let flying = (0..200).map(|_| {
        let bus = bus.clone();
        tokio::spawn(async move { bus.publish(&Address::Reports, message("a")).await })
    });
    let flying: Vec<_> = flying.collect();
    let start = Instant::now();
    proxy.cut();
    for fate in join_all(flying).await {
        let fate = fate.unwrap();
        assert!(matches!(fate, Err(BusError::Down(_))), "{fate:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    proxy.set(Fault::Pass);
    eventually(SOON, "the way to be clear", async || {
        bus.publish(&Address::Reports, message("b")).await.ok().filter(|p| *p == Published::Confirmed)
    })
    .await;
}

#[tokio::test]
async fn amqp_a_dropped_publish_leaves_the_others_alone() {
    let rig = Kind::Amqp.rig().await;
    let controller = rig.controller().await;
    controller.declare(&Queue::Reports).await.unwrap();
    for n in 0..50_u64 {
        let publish = controller.publish(&Address::Reports, message("dropped"));
        tokio::time::timeout(Duration::from_micros(n * 20), publish).await.ok();
        assert_eq!(publish_one(&*controller).await, Published::Confirmed);
    }
}

#[tokio::test]
async fn amqp_dropped_operations_leave_the_connection_alone() {
    let vhost = fresh_vhost().await;
    let (proxy, url) = ChaosProxy::in_front_of(vhost.url()).await;
    // Slow enough that a lost connection would be noticed below.
    let slow = Duration::from_secs(600);
    let retry = Retry { spread: slow, pause: slow, longest: slow };
    let bus =
        AmqpBus::start(AmqpOptions { retry, ..AmqpOptions::new(url, "test", Role::Controller) }).unwrap();
    up(&bus).await;
    bus.declare(&Queue::Heartbeats).await.unwrap();
    for n in 0..30_u64 {
        let patience = Duration::from_micros(n * 50);
        let queue = Queue::Agent(agent(1));
        tokio::time::timeout(patience, bus.declare(&queue)).await.ok();
        tokio::time::timeout(patience, bus.depth(&queue)).await.ok();
        tokio::time::timeout(patience, bus.delete(&queue)).await.ok();
        tokio::time::timeout(patience, bus.consume(&Queue::Heartbeats, Mode::SingleActive, 1)).await.ok();
    }
    assert_eq!(bus.depth(&Queue::Heartbeats).await.unwrap(), Some(0));
    assert_eq!(publish(&bus, &Address::Heartbeats, "a").await, Published::Confirmed);
    assert_eq!(proxy.connections(), 2);
}

async fn publish_one(bus: &dyn Bus) -> Published {
    publish(bus, &Address::Reports, "kept").await
}

#[tokio::test]
async fn amqp_over_tls_trusts_the_named_authority_alone() {
    let vhost = fresh_vhost().await;
    let options = AmqpOptions::new(vhost.tls_url(), "test", Role::Controller);
    let options = AmqpOptions { retry: Retry::quick(), ..options };
    let stranger = AmqpBus::start(options.clone()).unwrap();
    eventually(SOON, "a refusal", async || match stranger.depth(&Queue::Reports).await {
        Err(BusError::Down(why)) if why.contains("certificate") => Some(()),
        Err(BusError::Down(_)) => None,
        other => panic!("{other:?}"),
    })
    .await;
    let tls = TlsFiles { ca: Some(Services::shared().amqp_ca_file.clone()), identity: None };
    let bus = AmqpBus::start(AmqpOptions { tls, ..options.clone() }).unwrap();
    up(&bus).await;
    bus.declare(&Queue::Reports).await.unwrap();
    assert_eq!(publish(&bus, &Address::Reports, "sealed").await, Published::Confirmed);
    let mut consumer = consume(&bus).await;
    assert_eq!(text(&next(&mut *consumer).await), "sealed");

    let tls = TlsFiles { ca: Some("/no/such/file".into()), identity: None };
    let missing = AmqpBus::start(AmqpOptions { tls, ..options });
    assert!(matches!(missing.err(), Some(BadOptions::Tls(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amqp_a_broker_that_asks_for_certificates_hears_those_that_have_one() {
    let services = PrivateServices::that_ask_for_certificates().await;
    let start = |identity| {
        let options = AmqpOptions::new(services.amqps_url(), "test", Role::Agent);
        let tls = TlsFiles { ca: Some(services.tls_file("ca.pem")), identity };
        AmqpBus::start(AmqpOptions { tls, retry: Retry::quick(), ..options }).unwrap()
    };
    let identity = |name: &str| Identity {
        cert: services.tls_file(&format!("{name}.pem")),
        key: services.tls_file(&format!("{name}.key")),
    };
    let known = start(Some(identity("client")));
    up(&known).await;
    assert_eq!(known.depth(&Queue::Reports).await, Ok(None));
    // Nobody vouches for this one but itself.
    for refused in [start(None), start(Some(identity("stranger")))] {
        let mut health = refused.health();
        let quiet = tokio::time::timeout(QUIET * 5, health.wait_for(|h| *h == Health::Up)).await;
        assert!(quiet.is_err(), "it was let in");
    }
}

#[tokio::test]
async fn amqp_closing_leaves_no_connection() {
    let vhost = fresh_vhost().await;
    let (proxy, url) = ChaosProxy::in_front_of(vhost.url()).await;
    let bus = start(&url, Role::Controller);
    up(&bus).await;
    bus.declare(&Queue::Reports).await.unwrap();
    let consumer = bus.consume(&Queue::Reports, Mode::SingleActive, 10).await.unwrap();
    assert_eq!(proxy.connections(), 2);
    bus.close().await;
    eventually(SOON, "both connections to end", async || (proxy.connections() == 0).then_some(())).await;
    drop(consumer);

    let bus = start(&url, Role::Agent);
    up(&bus).await;
    assert_eq!(proxy.connections(), 1);
    drop(bus);
    eventually(SOON, "the connection to end", async || (proxy.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn amqp_private_a_killed_broker_comes_back_with_what_was_persistent() {
    let services = PrivateServices::start().await;
    let (controller, host) =
        (start(services.amqp_url(), Role::Controller), start(services.amqp_url(), Role::Agent));
    up(&controller).await;
    up(&host).await;
    controller.declare(&Queue::Reports).await.unwrap();
    controller.declare(&Queue::Agent(agent(1))).await.unwrap();
    assert_eq!(publish(&host, &Address::Reports, "kept").await, Published::Confirmed);
    assert_eq!(publish(&controller, &Address::Agent(agent(1)), "lost").await, Published::Confirmed);
    is_on_disk(&services).await;
    services.kill_rabbit().await;
    becomes(&controller, Health::Down).await;
    becomes(&host, Health::Down).await;
    services.start_rabbit().await;
    up(&controller).await;
    up(&host).await;
    depth(&controller, &Queue::Agent(agent(1)), Some(0)).await;
    let mut consumer = consume(&controller).await;
    assert_eq!(text(&next(&mut *consumer).await), "kept");

    services.wipe_broker().await;
    up(&controller).await;
    eventually(SOON, "the broker to answer", async || controller.depth(&Queue::Reports).await.ok()).await;
    assert_eq!(controller.depth(&Queue::Reports).await.unwrap(), None);
    controller.declare(&Queue::Reports).await.unwrap();
    eventually(SOON, "the way to be clear", async || {
        host.publish(&Address::Reports, message("new")).await.ok().filter(|p| *p == Published::Confirmed)
    })
    .await;
    let mut consumer = consume(&controller).await;
    assert_eq!(text(&next(&mut *consumer).await), "new");
}

/// RabbitMQ forgets where a new quorum queue's log lies when it is killed before it wrote that down.
async fn is_on_disk(services: &PrivateServices) {
    let names = || {
        let data = std::fs::read_dir(services.directory().join("rabbit/data")).ok()?;
        let nodes = data.flatten().map(|node| node.path().join("quorum").join(node.file_name()));
        let read = |node: std::path::PathBuf| std::fs::read(node.join("names.dets")).unwrap_or_default();
        nodes.map(read).any(|names| names.windows(14).any(|w| w == b"signet.reports")).then_some(())
    };
    eventually(SOON, "the queue to be on disk", async || names()).await;
}

/// A quorum queue needs a moment after a start to have a leader.
async fn consume(bus: &AmqpBus) -> Box<dyn signet_common::bus::Consumer> {
    eventually(SOON, "a consumer", async || bus.consume(&Queue::Reports, Mode::SingleActive, 10).await.ok())
        .await
}

#[tokio::test]
async fn amqp_private_a_reports_queue_that_died_young_is_made_anew() {
    let services = PrivateServices::start().await;
    let controller = start(services.amqp_url(), Role::Controller);
    up(&controller).await;
    controller.declare(&Queue::Reports).await.unwrap();
    services.kill_rabbit().await;
    becomes(&controller, Health::Down).await;
    services.start_rabbit().await;
    up(&controller).await;
    // It is given up after some tries only, of 20 s each.
    let mut consumer = eventually(SOON * 10, "a consumer", async || {
        match controller.consume(&Queue::Reports, Mode::SingleActive, 10).await {
            Ok(consumer) => Some(consumer),
            Err(BusError::NoQueue(_)) => controller.declare(&Queue::Reports).await.ok().and(None),
            Err(_) => None,
        }
    })
    .await;
    assert_eq!(publish(&controller, &Address::Reports, "taken").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *consumer).await), "taken");
}

#[tokio::test]
async fn amqp_a_broker_that_is_slow_loses_no_reports() {
    let vhost = fresh_vhost().await;
    let (proxy, url) = ChaosProxy::in_front_of(vhost.url()).await;
    let bus = start(&url, Role::Controller);
    up(&bus).await;
    bus.declare(&Queue::Reports).await.unwrap();
    assert_eq!(publish(&bus, &Address::Reports, "kept").await, Published::Confirmed);
    proxy.set(Fault::Stall);
    // Whatever was asked meanwhile arrives when this has been given up.
    let asked = bus.consume(&Queue::Reports, Mode::SingleActive, 10).await;
    proxy.set(Fault::Pass);
    let mut consumer = match asked {
        Ok(consumer) => consumer,
        Err(BusError::Down(_)) => consume(&bus).await,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(text(&next(&mut *consumer).await), "kept");
}

#[tokio::test]
async fn amqp_private_an_alarm_blocks_publishing_and_not_consuming() {
    let services = PrivateServices::start().await;
    let controller = start(services.amqp_url(), Role::Controller);
    up(&controller).await;
    let queue = Queue::Agent(agent(1));
    controller.declare(&queue).await.unwrap();
    let to = Address::Agent(agent(1));
    for n in 0..3 {
        assert_eq!(publish(&controller, &to, n.to_string()).await, Published::Confirmed);
    }
    services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.000001"]).await;
    // The broker tells a connection that it is blocked when that publishes next.
    let blocked = async {
        let first = controller.publish(&to, message("stuck")).await;
        assert!(matches!(first, Ok(Published::Confirmed) | Err(BusError::Down(_))), "{first:?}");
    };
    let mut consumer = controller.consume(&queue, Mode::Exclusive, 1).await.unwrap();
    tokio::select! {
        () = blocked => {}
        () = becomes(&controller, Health::Blocked) => {}
    }
    becomes(&controller, Health::Blocked).await;
    for n in 0..3 {
        let taken = next(&mut *consumer).await;
        assert_eq!(text(&taken), n.to_string());
        consumer.ack(taken.tag).await.unwrap();
    }
    assert!(matches!(controller.publish(&to, message("fast")).await, Err(BusError::Down(_))));
    services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    up(&controller).await;
    eventually(SOON, "the way to be clear", async || {
        controller.publish(&to, message("free")).await.ok().filter(|p| *p == Published::Confirmed)
    })
    .await;
}
