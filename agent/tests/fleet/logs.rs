//! Journals, cursors, and what happens when they don't fit.

use std::sync::Arc;

use serde_json::json;
use signet_agent::journal::{Entry, Journal, Purpose};
use signet_common::PayloadType;
use signet_common::bus::Health;
use signet_common::bus::memory::MemoryBus;
use signet_common::ids::Jti;
use signet_common::messages::{Event, Outcome, Rejection, Standing};
use signet_common::time::Micros;

use crate::controller::{Controller, command, now};
use crate::support::{Agent, config};

/// Writes what an agent that died would have left.
pub(crate) async fn leave(dir: &std::path::Path, entries: Vec<Entry>) {
    let opened = Journal::open(dir, "another boot").unwrap();
    opened.journal.booted("another boot".into()).await;
    opened.journal.append(entries, Purpose::Work, Micros::now()).await.unwrap();
    drop(opened.journal);
    opened.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn after_a_crash_what_started_is_interrupted_and_what_was_accepted_runs() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let id = agent.id.clone();
    // It has heard the answer to its hello, and keeps the keyring.
    controller.heartbeat(|h| h.keyring == 1).await;
    agent.stop().await;

    let mut entries = Vec::new();
    let mut sign = |change, started: bool| {
        let (jti, payload) = command(&id, change);
        let message = Some(controller.sign(PayloadType::Command, &payload));
        let exp = payload["exp"].as_i64().unwrap();
        entries.push(Entry { event: Event::Accepted { jti: jti.clone(), at: 1 }, exp, message });
        if started {
            entries.push(Entry { event: Event::Started { jti: jti.clone(), at: 1 }, exp: 0, message: None });
        }
        jti
    };
    let started = sign(json!({ "command": "echo never" }), true);
    let accepted = sign(json!({ "command": "echo runs" }), false);
    let expired = sign(json!({ "exp": now() - 1 }), false);
    leave(dir.path(), entries).await;

    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let result = controller.result(&started).await;
    assert_eq!((result.outcome, result.reason.as_deref()), (Outcome::Interrupted, Some("host rebooted")));
    assert_eq!(controller.result(&accepted).await.stdout, b"runs\n");
    assert_eq!(controller.result(&expired).await.outcome, Outcome::Expired);
    agent.stop().await;
}

#[tokio::test]
async fn what_was_accepted_runs_also_while_the_controller_is_away() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let id = agent.id.clone();
    // It has heard the answer to its hello, and keeps the keyring.
    controller.heartbeat(|h| h.keyring == 1).await;
    agent.stop().await;
    let mark = dir.path().join("mark");
    let (jti, payload) = command(&id, json!({ "command": format!("touch {}", mark.display()) }));
    let message = Some(controller.sign(PayloadType::Command, &payload));
    let exp = payload["exp"].as_i64().unwrap();
    leave(dir.path(), vec![Entry { event: Event::Accepted { jti: jti.clone(), at: 1 }, exp, message }]).await;

    controller.state().refuse = Some((503, "not now"));
    let agent = Agent::begin(&controller, config(&controller, dir.path())).await;
    controller.wait("the command to run", |_| mark.exists().then_some(())).await;
    controller.state().refuse = None;
    assert_eq!(controller.result(&jti).await.outcome, Outcome::Succeeded);
    agent.stop().await;
}

#[tokio::test]
async fn a_broker_that_lost_everything_is_told_again() {
    let bus = MemoryBus::default();
    let (controller, dir) = (Controller::start_on(Arc::new(bus.clone())).await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let first = controller.command(&agent.id, json!({})).await;
    controller.result(&first).await;

    // A report that the broker had and lost.
    let lost = controller.command(&agent.id, json!({})).await;
    controller.result(&lost).await;
    let log = {
        let mut state = controller.state();
        let log = state.hellos[0].log_id.clone();
        state.events.clear();
        state.cursors.clear();
        log
    };
    controller.resume(&agent.id, Some(&log)).await;
    controller.result(&first).await;
    controller.result(&lost).await;
    assert_eq!(controller.state().count("started", &lost), 1);

    // The queue is gone: the agent says hello, and it is declared again.
    let hellos = controller.state().hellos.len();
    bus.wipe();
    controller.wait("a hello", |state| (state.hellos.len() > hellos).then_some(())).await;
    let again = controller.command(&agent.id, json!({})).await;
    controller.result(&again).await;

    // Away for a while.
    bus.set_health(Health::Down);
    bus.set_health(Health::Up);
    let again = controller.command(&agent.id, json!({})).await;
    controller.result(&again).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_rolled_back_journal_shows_in_the_hello_and_a_new_log_is_the_way_on() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    controller.command(&agent.id, json!({})).await;
    controller.wait("a result", |state| (state.events.len() == 3).then_some(())).await;
    let (log, cursor) = {
        let state = controller.state();
        (state.hellos[0].log_id.clone(), state.cursors[&state.hellos[0].log_id])
    };
    agent.stop().await;

    // Put back to an older state: the newest events are cut.
    let segment = dir.path().join("journal/000000000001.seg");
    let length = std::fs::metadata(&segment).unwrap().len();
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(length - 50).unwrap();
    controller.state().standing = Standing::SetAside;
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    {
        let state = controller.state();
        let hello = state.hellos.last().unwrap();
        assert_eq!((&hello.log_id, hello.new_log), (&log, false));
        assert!(hello.head < cursor.0 && hello.chain != cursor.1);
    }
    // Nothing starts while it is set aside.
    let waits = controller.command(&agent.id, json!({})).await;
    controller.heartbeat(|h| h.waiting == 1).await;

    controller.state().new_log = true;
    controller.resume(&agent.id, None).await;
    let new = controller
        .wait("a hello with a new log", |state| {
            state.hellos.last().filter(|h| h.new_log).map(|h| h.log_id.clone())
        })
        .await;
    assert_ne!(new, log);
    let next = controller.command(&agent.id, json!({ "iat": now() + 1 })).await;
    controller.result(&next).await;
    let about = |event: &Event| event.jti() == Some(&waits);
    assert!(
        !controller.state().events.iter().any(about),
        "it never runs, and whether it ever ran is not known"
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_resume_for_a_foreign_log_or_another_chain_is_answered_with_a_hello() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let jti = controller.command(&agent.id, json!({})).await;
    controller.result(&jti).await;
    let foreign = signet_common::LogId::generate();
    controller.resume(&agent.id, Some(&foreign)).await;
    controller.wait("a hello", |state| (state.hellos.len() == 2).then_some(())).await;
    let log = {
        let mut state = controller.state();
        let log = state.hellos[0].log_id.clone();
        let foreign = signet_common::chain::ChainHash::genesis(&foreign);
        state.cursors.get_mut(&log).unwrap().1 = foreign;
        log
    };
    controller.resume(&agent.id, Some(&log)).await;
    controller.wait("a hello", |state| (state.hellos.len() == 3).then_some(())).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_damaged_journal_begins_a_new_log_and_refuses_what_was_issued_before() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let before = now() - 1;
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    // By a controller whose clock is a little behind. No log came before this one, so the agent can say that it never
    // started; what is older makes no event.
    let early = controller.command(&agent.id, json!({ "iat": before })).await;
    let stale = controller.command(&agent.id, json!({ "iat": before - 100 })).await;
    let (ran, payload) = command(&agent.id, json!({}));
    let envelope = controller.sign(PayloadType::Command, &payload);
    controller.publish(&agent.id, envelope.clone()).await;
    controller.result(&ran).await;
    {
        let state = controller.state();
        let rejected = |event: &Event| matches!(event, Event::Rejected { jti, reason: Rejection::NewLog, .. } if *jti == early);
        assert!(state.events.iter().any(rejected), "{:#?}", state.events);
        assert!(!state.events.iter().any(|event| event.jti() == Some(&stale)));
    }
    agent.stop().await;

    let segment = dir.path().join("journal/000000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    // The next log begins in a later second.
    let issued = payload["iat"].as_i64().unwrap();
    controller.wait("the next second", |_| (now() > issued).then_some(())).await;
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let hellos = controller.state().hellos.iter().map(|h| (h.log_id.clone(), h.new_log)).collect::<Vec<_>>();
    assert!(hellos[0].0 != hellos[1].0 && hellos[1].1);
    controller.state().events.clear();
    controller.publish(&agent.id, envelope).await;
    let next: Jti = controller.command(&agent.id, json!({})).await;
    controller.result(&next).await;
    // It may have run under the log before: only the controller knows what that said.
    assert!(!controller.state().events.iter().any(|event| event.jti() == Some(&ran)));
    agent.stop().await;
}
