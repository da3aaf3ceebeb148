//! What both buses do.

use std::time::Duration;

use futures_util::future::join_all;
use signet_common::Envelope;
use signet_common::bus::topology::Topology;
use signet_common::bus::{Address, BusError, Health, Mode, Published, Queue};
use signet_testkit::eventually;

use crate::rig::{Kind, SOON, agent, depth, end, message, next, nothing, publish, text, up};

fn to(n: u32) -> Address {
    Address::Agent(agent(n))
}

fn queue(n: u32) -> Queue {
    Queue::Agent(agent(n))
}

pub(crate) async fn a_message_arrives_as_it_was_sent(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    let sent = Envelope {
        payload_type: "any/thing".into(),
        keyid: "ü".into(),
        sig: "s".repeat(8_000),
        body: (0..=255).collect::<Vec<u8>>().into(),
    };
    assert_eq!(controller.publish(&to(1), sent.clone()).await.unwrap(), Published::Confirmed);
    assert_eq!(publish(&*controller, &to(1), "").await, Published::Confirmed);
    for large in [
        Envelope { sig: "s".repeat(70_000), ..sent.clone() },
        Envelope { payload_type: "t".repeat(256), ..sent.clone() },
    ] {
        let refused = controller.publish(&to(1), large).await;
        assert!(matches!(refused, Err(BusError::Refused(_))), "{refused:?}");
    }

    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    let first = next(&mut *consumer).await;
    assert_eq!(first.envelope, sent);
    assert!(!first.redelivered);
    let second = next(&mut *consumer).await;
    assert_eq!(text(&second), "");
    assert!(second.tag > first.tag);
    assert!(consumer.try_next().is_none());
    consumer.ack_through(second.tag).await.unwrap();
    drop(consumer);
    depth(&*controller, &queue(1), Some(0)).await;
}

pub(crate) async fn a_million_bytes_pass(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&Queue::Reports).await.unwrap();
    let large: Vec<u8> = (0..1024 * 1024_u32).map(|n| n.to_le_bytes()[1]).collect();
    assert_eq!(publish(&*host, &Address::Reports, &large).await, Published::Confirmed);
    let mut consumer = controller.consume(&Queue::Reports, Mode::SingleActive, 10).await.unwrap();
    assert!(next(&mut *consumer).await.envelope.body == large);
}

pub(crate) async fn what_has_no_queue_is_returned(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    assert_eq!(publish(&*controller, &to(2), "a").await, Published::Returned);
    assert_eq!(publish(&*controller, &to(1), "b").await, Published::Confirmed);
    // Here even the exchange is missing.
    assert_eq!(publish(&*host, &Address::Reports, "c").await, Published::Returned);
    assert_eq!(publish(&*host, &Address::Heartbeats, "d").await, Published::Returned);
    controller.declare(&Queue::Reports).await.unwrap();
    assert_eq!(publish(&*host, &Address::Reports, "e").await, Published::Confirmed);
    assert_eq!(publish(&*host, &Address::Heartbeats, "f").await, Published::Returned);
}

pub(crate) async fn each_of_many_publishes_hears_its_own_fate(kind: Kind) {
    let rig = kind.with(Topology { agent_length: 1, ..Topology::default() }).await;
    let controller = rig.controller().await;
    for n in (0..300).step_by(3) {
        // There, full, missing.
        controller.declare(&queue(n)).await.unwrap();
        controller.declare(&queue(n + 1)).await.unwrap();
        assert_eq!(publish(&*controller, &to(n + 1), "").await, Published::Confirmed);
    }
    let all = join_all((0..300).map(|n| {
        let controller = controller.clone();
        async move { publish(&*controller, &to(n), n.to_string()).await }
    }));
    for (n, fate) in all.await.into_iter().enumerate() {
        let wanted = [Published::Confirmed, Published::Refused, Published::Returned][n % 3];
        assert_eq!(fate, wanted, "of {n}");
    }
}

pub(crate) async fn a_full_agent_queue_refuses_until_there_is_room(kind: Kind) {
    let rig = kind.with(Topology { agent_length: 3, ..Topology::default() }).await;
    let controller = rig.controller().await;
    controller.declare(&queue(1)).await.unwrap();
    for n in 0..3 {
        assert_eq!(publish(&*controller, &to(1), n.to_string()).await, Published::Confirmed);
    }
    assert_eq!(publish(&*controller, &to(1), "3").await, Published::Refused);
    depth(&*controller, &queue(1), Some(3)).await;

    let host = rig.agent().await;
    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 1).await.unwrap();
    let taken = next(&mut *consumer).await;
    assert_eq!(text(&taken), "0", "the oldest stays when a publish is refused");
    consumer.ack(taken.tag).await.unwrap();
    eventually(SOON, "room in the queue", async || {
        (publish(&*controller, &to(1), "4").await == Published::Confirmed).then_some(())
    })
    .await;
}

pub(crate) async fn reports_are_bounded_in_bytes(kind: Kind) {
    let rig = kind.with(Topology { reports_bytes: 50_000, ..Topology::default() }).await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&Queue::Reports).await.unwrap();
    let mut confirmed = 0;
    // A quorum queue may take a few more than its bound before it refuses.
    eventually(SOON, "a refusal", async || match publish(&*host, &Address::Reports, [b'x'; 10_000]).await {
        Published::Refused => Some(()),
        other => {
            assert_eq!(other, Published::Confirmed);
            confirmed += 1;
            None
        }
    })
    .await;
    assert!((5..50).contains(&confirmed), "{confirmed} were taken");
}

pub(crate) async fn the_oldest_heartbeats_go_first(kind: Kind) {
    let rig = kind.with(Topology { heartbeats_bytes: 5_000, ..Topology::default() }).await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&Queue::Heartbeats).await.unwrap();
    for n in 0..20_u8 {
        assert_eq!(publish(&*host, &Address::Heartbeats, [b'a' + n; 1_000]).await, Published::Confirmed);
    }
    let mut consumer = controller.consume(&Queue::Heartbeats, Mode::SingleActive, 100).await.unwrap();
    let mut came = Vec::new();
    while came.last() != Some(&(b'a' + 19)) {
        came.push(next(&mut *consumer).await.envelope.body[0]);
    }
    assert!((4..=6).contains(&came.len()), "{came:?}");
    assert!(came.is_sorted());
}

pub(crate) async fn messages_expire(kind: Kind) {
    let ttl = Duration::from_millis(200);
    let rig = kind.with(Topology { agent_ttl: ttl, heartbeat_ttl: ttl, ..Topology::default() }).await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    controller.declare(&Queue::Heartbeats).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "old").await, Published::Confirmed);
    assert_eq!(publish(&*host, &Address::Heartbeats, "old").await, Published::Confirmed);
    depth(&*controller, &queue(1), Some(0)).await;
    depth(&*controller, &Queue::Heartbeats, Some(0)).await;
    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "new").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *consumer).await), "new");
}

pub(crate) async fn declaring_again_keeps_the_messages(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, other) = (rig.controller().await, rig.controller().await);
    for queue in [queue(1), Queue::Reports, Queue::Heartbeats] {
        controller.declare(&queue).await.unwrap();
    }
    for to in [to(1), Address::Reports, Address::Heartbeats] {
        assert_eq!(publish(&*controller, &to, "kept").await, Published::Confirmed);
    }
    for queue in [queue(1), Queue::Reports, Queue::Heartbeats] {
        other.declare(&queue).await.unwrap();
        depth(&*other, &queue, Some(1)).await;
    }
}

pub(crate) async fn an_exclusive_consumer_keeps_others_out(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host, clone) = (rig.controller().await, rig.agent().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    let first = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    for bus in [&host, &clone] {
        let second = bus.consume(&queue(1), Mode::Exclusive, 10).await;
        assert_eq!(second.err(), Some(BusError::InUse(queue(1).name())));
    }
    drop(first);
    // The same bus is not in its own way, at once.
    let again = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    drop(again);
    eventually(SOON, "the queue to be free", async || {
        clone.consume(&queue(1), Mode::Exclusive, 10).await.ok().map(drop)
    })
    .await;
}

pub(crate) async fn another_takes_over_when_the_active_consumer_goes(kind: Kind) {
    let rig = kind.rig().await;
    let (one, two) = (rig.controller().await, rig.controller().await);
    one.declare(&Queue::Reports).await.unwrap();
    let mut active = one.consume(&Queue::Reports, Mode::SingleActive, 10).await.unwrap();
    let mut waiting = two.consume(&Queue::Reports, Mode::SingleActive, 10).await.unwrap();
    for n in 0..4 {
        assert_eq!(publish(&*one, &Address::Reports, n.to_string()).await, Published::Confirmed);
    }
    let first = next(&mut *active).await;
    assert_eq!(text(&first), "0");
    active.ack(first.tag).await.unwrap();
    assert_eq!(text(&next(&mut *active).await), "1");
    nothing(&mut *waiting).await;
    drop(active);

    for n in 1..4 {
        let taken = next(&mut *waiting).await;
        assert_eq!(text(&taken), n.to_string(), "in order, from the first that was not acknowledged");
        assert!(n > 1 || taken.redelivered);
        waiting.ack(taken.tag).await.unwrap();
    }
    drop(waiting);
    depth(&*one, &Queue::Reports, Some(0)).await;
}

pub(crate) async fn what_was_not_acknowledged_comes_again_in_order(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    for n in 0..6 {
        assert_eq!(publish(&*controller, &to(1), n.to_string()).await, Published::Confirmed);
    }
    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    let mut tags = Vec::new();
    for _ in 0..5 {
        tags.push(next(&mut *consumer).await.tag);
    }
    consumer.ack_through(tags[1]).await.unwrap();
    consumer.ack(tags[3]).await.unwrap();
    drop(consumer);

    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    for (wanted, redelivered) in [("2", true), ("4", true)] {
        let taken = next(&mut *consumer).await;
        assert_eq!((text(&taken).as_str(), taken.redelivered), (wanted, redelivered));
    }
    assert_eq!(text(&next(&mut *consumer).await), "5");
}

pub(crate) async fn the_prefetch_bounds_what_is_in_hand(kind: Kind) {
    let rig = kind.rig().await;
    let controller = rig.controller().await;
    controller.declare(&queue(1)).await.unwrap();
    for n in 0..5 {
        assert_eq!(publish(&*controller, &to(1), n.to_string()).await, Published::Confirmed);
    }
    let mut consumer = controller.consume(&queue(1), Mode::Exclusive, 2).await.unwrap();
    let first = next(&mut *consumer).await;
    let second = next(&mut *consumer).await;
    nothing(&mut *consumer).await;
    consumer.ack_through(second.tag).await.unwrap();
    assert!(first.tag < second.tag);
    assert_eq!(text(&next(&mut *consumer).await), "2");
    assert_eq!(text(&next(&mut *consumer).await), "3");
    nothing(&mut *consumer).await;
}

pub(crate) async fn settling_twice_does_no_harm(kind: Kind) {
    let rig = kind.rig().await;
    let controller = rig.controller().await;
    controller.declare(&queue(1)).await.unwrap();
    let mut consumer = controller.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "a").await, Published::Confirmed);
    let taken = next(&mut *consumer).await;
    consumer.ack(taken.tag).await.unwrap();
    consumer.ack(taken.tag).await.unwrap();
    consumer.ack_through(taken.tag).await.unwrap();
    consumer.reject(taken.tag).await.unwrap();
    consumer.requeue(taken.tag).await.unwrap();
    consumer.ack_through(0).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "b").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *consumer).await), "b", "the consumer still works");
}

pub(crate) async fn a_rejected_report_goes_to_the_refused(kind: Kind) {
    let rig = kind.rig().await;
    let controller = rig.controller().await;
    controller.declare(&Queue::Reports).await.unwrap();
    controller.declare(&queue(1)).await.unwrap();
    let mut reports = controller.consume(&Queue::Reports, Mode::SingleActive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &Address::Reports, "forged").await, Published::Confirmed);
    let taken = next(&mut *reports).await;
    reports.reject(taken.tag).await.unwrap();
    depth(&*controller, &Queue::Refused, Some(1)).await;
    let mut refused = controller.consume(&Queue::Refused, Mode::SingleActive, 10).await.unwrap();
    assert_eq!(next(&mut *refused).await.envelope, message("forged"));

    // Elsewhere a rejected message is gone.
    let mut host = controller.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "a").await, Published::Confirmed);
    let taken = next(&mut *host).await;
    host.reject(taken.tag).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "b").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *host).await), "b");
}

pub(crate) async fn a_requeued_message_comes_again(kind: Kind) {
    let rig = kind.rig().await;
    let controller = rig.controller().await;
    controller.declare(&queue(1)).await.unwrap();
    let mut consumer = controller.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "again").await, Published::Confirmed);
    let taken = next(&mut *consumer).await;
    consumer.requeue(taken.tag).await.unwrap();
    let taken = next(&mut *consumer).await;
    assert_eq!((text(&taken).as_str(), taken.redelivered), ("again", true));
}

pub(crate) async fn deleting_a_queue_ends_its_consumer(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "held").await, Published::Confirmed);
    let held = next(&mut *consumer).await;
    controller.delete(&queue(1)).await.unwrap();
    assert_eq!(end(&mut *consumer).await, BusError::NoQueue(queue(1).name()));
    assert_eq!(end(&mut *consumer).await, BusError::NoQueue(queue(1).name()), "and stays ended");
    assert!(consumer.try_next().is_none());
    assert_eq!(controller.depth(&queue(1)).await.unwrap(), None);
    assert_eq!(publish(&*controller, &to(1), "late").await, Published::Returned);
    controller.delete(&queue(1)).await.unwrap();
    controller.declare(&queue(1)).await.unwrap();
    assert_eq!(controller.depth(&queue(1)).await.unwrap(), Some(0), "what was in hand is gone with it");
    // In vain, and it must not hurt the others on this connection.
    consumer.ack(held.tag).await.ok();
    let mut again = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "new").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *again).await), "new");
}

pub(crate) async fn consuming_a_missing_queue_fails(kind: Kind) {
    let rig = kind.rig().await;
    let host = rig.agent().await;
    let missing = host.consume(&queue(1), Mode::Exclusive, 10).await;
    assert_eq!(missing.err(), Some(BusError::NoQueue(queue(1).name())));
    assert_eq!(host.depth(&queue(1)).await.unwrap(), None);
}

pub(crate) async fn doorbells_reach_every_listener(kind: Kind) {
    let rig = kind.rig().await;
    let (one, two) = (rig.controller().await, rig.controller().await);
    assert_eq!(publish(&*one, &Address::Live, "nobody").await, Published::Confirmed);
    let (first, second) = (Queue::Live("one".into()), Queue::Live("two".into()));
    one.declare(&first).await.unwrap();
    two.declare(&second).await.unwrap();
    let mut hears = one.consume(&first, Mode::Exclusive, 10).await.unwrap();
    let mut also = two.consume(&second, Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*two, &Address::Live, "ring").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *hears).await), "ring");
    assert_eq!(text(&next(&mut *also).await), "ring");
    drop(hears);
    // The queue goes with its consumer.
    depth(&*one, &first, None).await;
    assert_eq!(publish(&*two, &Address::Live, "ring").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *also).await), "ring");
}

pub(crate) async fn a_wiped_broker_has_nothing(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    controller.declare(&Queue::Reports).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "lost").await, Published::Confirmed);
    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    rig.wipe().await;
    let ended = async { while consumer.next().await.is_ok() {} };
    tokio::time::timeout(SOON, ended).await.expect("the consumer's end");
    drop(consumer);

    eventually(SOON, "the broker to answer", async || controller.depth(&queue(1)).await.ok()).await;
    eventually(SOON, "the agent to be back", async || host.depth(&queue(1)).await.ok()).await;
    assert_eq!(controller.depth(&queue(1)).await.unwrap(), None);
    assert_eq!(controller.depth(&Queue::Reports).await.unwrap(), None);
    assert_eq!(publish(&*controller, &to(1), "a").await, Published::Returned);
    assert_eq!(publish(&*host, &Address::Reports, "b").await, Published::Returned);
    controller.declare(&queue(1)).await.unwrap();
    controller.declare(&Queue::Reports).await.unwrap();
    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*host, &Address::Reports, "c").await, Published::Confirmed);
    assert_eq!(publish(&*controller, &to(1), "new").await, Published::Confirmed);
    assert_eq!(text(&next(&mut *consumer).await), "new");
}

pub(crate) async fn everything_fails_fast_without_a_broker(kind: Kind) {
    let rig = kind.rig().await;
    let (controller, host) = (rig.controller().await, rig.agent().await);
    controller.declare(&queue(1)).await.unwrap();
    let mut consumer = host.consume(&queue(1), Mode::Exclusive, 10).await.unwrap();
    assert_eq!(publish(&*controller, &to(1), "in hand").await, Published::Confirmed);
    let held = next(&mut *consumer).await;
    let mut health = controller.health();
    rig.cut_off();
    assert!(matches!(end(&mut *consumer).await, BusError::Down(_)));
    assert!(matches!(consumer.ack(held.tag).await, Err(BusError::Down(_))));
    tokio::time::timeout(SOON, health.wait_for(|h| *h == Health::Down)).await.unwrap().unwrap();
    let down = |e| assert!(matches!(e, BusError::Down(_)), "{e:?}");
    down(controller.publish(&to(1), message("a")).await.unwrap_err());
    down(controller.declare(&queue(2)).await.unwrap_err());
    down(controller.delete(&queue(2)).await.unwrap_err());
    down(controller.depth(&queue(1)).await.unwrap_err());
    down(controller.consume(&queue(1), Mode::Exclusive, 1).await.err().unwrap());
    drop(consumer);

    rig.reconnect();
    up(&*controller).await;
    up(&*host).await;
    let mut consumer = eventually(SOON, "the queue to be free", async || {
        host.consume(&queue(1), Mode::Exclusive, 10).await.ok()
    })
    .await;
    let again = next(&mut *consumer).await;
    assert_eq!((text(&again).as_str(), again.redelivered), ("in hand", true));
}
