//! What ends without an agent's word, and batches whose hosts are away. Time passes in the database, not in the test.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use signet_controller::leases::Lease;
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::support::fake_agent::{FakeAgent, exited};
use super::support::moody_bus::MoodyBus;
use super::support::{PATIENCE, TestApp};
use super::{ask, ask_node, target_in, task};

on_both_pairs!(
    what_was_never_sent_expires,
    what_was_sent_is_lost_until_the_agent_says_more,
    deadlines_come_also_when_another_step_fails,
    a_batch_at_work_costs_nothing,
    half_of_the_hosts_at_a_time,
    a_host_that_is_away_lets_the_next_batch_go,
    a_host_that_is_away_counts_as_failed,
    a_lease_is_renewed_when_half_of_it_is_over,
);

/// All deadlines have passed.
async fn let_deadlines_pass(app: &TestApp) {
    app.change("UPDATE deliveries SET deadline_at = 1").await;
}

async fn what_was_never_sent_expires(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::new(&app, "late", "web").await;
    agent.hello(&app).await;
    agent.consume().await;
    let id = ask_node(&app, "late").await;
    let_deadlines_pass(&app).await;
    let ended = target_in(&app, &id, "late", "expired").await;
    assert_eq!(ended["reason"], "never sent before it expired");
    assert_eq!(task(&app, &id).await["status"], "expired");
    let results = app.get(&format!("/api/tasks/{id}/results")).await.expect(200);
    assert_eq!(results[0]["exit_code"], -1);
    // The host comes back after that: it gets what is asked for then, and nothing of the past.
    agent.come_online(&app).await;
    let next = ask_node(&app, "late").await;
    assert_eq!(agent.next_command().await.task_id.as_str(), next);
}

async fn what_was_sent_is_lost_until_the_agent_says_more(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let (sent, running) = (ask_node(&app, "h1").await, ask_node(&app, "h1").await);
    let mut jtis = std::collections::BTreeMap::new();
    while jtis.len() < 2 {
        let command = agent.next_command().await;
        jtis.insert(command.task_id.to_string(), command.jti);
    }
    agent.accepted(&jtis[&running]).await;
    agent.started(&jtis[&running]).await;
    target_in(&app, &running, "h1", "running").await;
    let_deadlines_pass(&app).await;
    for id in [&sent, &running] {
        let lost = target_in(&app, id, "h1", "lost").await;
        let reason = lost["reason"].as_str().unwrap();
        assert!(reason.starts_with("no word since 2") && reason.ends_with("; it may have run"), "{reason}");
    }
    agent.result(&jtis[&running], exited(3, "after all\n", "")).await;
    assert_eq!(target_in(&app, &running, "h1", "failed").await["exit_code"], 3);
    target_in(&app, &sent, "h1", "lost").await;
}

async fn deadlines_come_also_when_another_step_fails(pair: Pair) {
    let parts = pair.parts().await;
    let bus = Arc::new(MoodyBus::new(parts.controller_bus().await));
    bus.declares_nothing.store(true, Ordering::Relaxed);
    let app = TestApp::start_on(parts, bus, |_| {}).await;
    let agent = FakeAgent::new(&app, "h1", "web").await;
    let hello = agent.draft(&app).await;
    assert_eq!(agent.say(&app, &hello).await.status.as_u16(), 200, "the answer counts without a queue");
    let id = ask_node(&app, "h1").await;
    let_deadlines_pass(&app).await;
    target_in(&app, &id, "h1", "expired").await;
}

async fn a_batch_at_work_costs_nothing(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agents = [FakeAgent::enrol(&app, "a", "web").await, FakeAgent::enrol(&app, "b", "web").await];
    let asleep = FakeAgent::new(&app, "asleep", "db").await;
    let hello = asleep.draft(&app).await;
    asleep.say(&app, &hello).await;
    let id = ask(&app, json!({"target_type": "group", "target": "web", "command": "true", "batch": 1})).await;
    let command = agents[0].next_command().await;
    agents[0].accepted(&command.jti).await;
    target_in(&app, &id, "a", "accepted").await;
    let changes = "SELECT live_seq FROM dispatches WHERE last_batch = 1";
    let before = app.number(changes).await;
    // Each of these is ended by a sweep.
    for _ in 0..3 {
        let other = ask_node(&app, "asleep").await;
        app.change("UPDATE deliveries SET deadline_at = 1 WHERE state = 'waiting' AND hostname = 'asleep'")
            .await;
        target_in(&app, &other, "asleep", "expired").await;
    }
    assert_eq!(app.number(changes).await, before, "a task that only waits was written");
    agents[0].result(&command.jti, exited(0, "", "")).await;
    agents[1].run_next(exited(0, "", "")).await;
    target_in(&app, &id, "b", "succeeded").await;
}

async fn half_of_the_hosts_at_a_time(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d"] {
        agents.push(FakeAgent::enrol(&app, name, "web").await);
    }
    let id = ask(&app, json!({"target_type": "all", "command": "true", "batch": "50%"})).await;
    for at in [0, 1] {
        let held = "SELECT COUNT(*) FROM deliveries WHERE state = 'waiting'";
        assert_eq!(app.number(held).await, 2, "the second half waits for the whole first");
        agents[at].run_next(exited(0, "", "")).await;
        target_in(&app, &id, ["a", "b"][at], "succeeded").await;
    }
    for at in [2, 3] {
        agents[at].run_next(exited(0, "", "")).await;
        target_in(&app, &id, ["c", "d"][at - 2], "succeeded").await;
    }
    assert_eq!(task(&app, &id).await["status"], "done");
}

/// Two hosts of which the first takes its command and is never heard of again; the task is asked for one at a time.
async fn with_one_away(pair: Pair, max_failures: Option<u32>) -> (TestApp, [FakeAgent; 2], String) {
    let app = TestApp::start(pair).await;
    let mut agents = [FakeAgent::enrol(&app, "a", "web").await, FakeAgent::enrol(&app, "b", "web").await];
    let mut body = json!({"target_type": "all", "command": "true", "timeout": 30, "batch": 1});
    if let Some(max) = max_failures {
        body["max_failures"] = json!(max);
    }
    let id = ask(&app, body).await;
    agents[0].next_command().await;
    // `timeout` + 2 minutes and a moment ago.
    let away = "UPDATE heartbeats SET received_at = received_at - 151000000 WHERE agent_id = \
                (SELECT agent_id FROM servers WHERE hostname = 'a')";
    app.change(away).await;
    (app, agents, id)
}

async fn a_host_that_is_away_lets_the_next_batch_go(pair: Pair) {
    let (app, mut agents, id) = with_one_away(pair, None).await;
    agents[1].run_next(exited(0, "", "")).await;
    target_in(&app, &id, "b", "succeeded").await;
    target_in(&app, &id, "a", "sent").await;
}

async fn a_host_that_is_away_counts_as_failed(pair: Pair) {
    let (app, _agents, id) = with_one_away(pair, Some(0)).await;
    assert_eq!(target_in(&app, &id, "b", "cancelled").await["reason"], "max_failures");
    target_in(&app, &id, "a", "sent").await;
}

async fn a_lease_is_renewed_when_half_of_it_is_over(pair: Pair) {
    let app = TestApp::start(pair).await;
    let lease = || Lease::new(app.running.app.store.clone(), "test");
    let (one, other) = (lease(), lease());
    let until = "SELECT lease_until FROM leases WHERE name = 'test'";
    assert!(one.take().await.unwrap());
    let first = app.number(until).await;
    assert!(one.take().await.unwrap() && !other.take().await.unwrap());
    assert_eq!(app.number(until).await, first, "it was written although more than half of it was left");
    app.change("UPDATE leases SET lease_until = lease_until - 5000000 WHERE name = 'test'").await;
    assert!(one.take().await.unwrap());
    assert!(app.number(until).await >= first);
    one.release().await;
    assert!(other.take().await.unwrap() && !one.take().await.unwrap());
    eventually(PATIENCE, "the sweep's own lease", async || {
        (app.number("SELECT COUNT(*) FROM leases WHERE name = 'reconciler'").await == 1).then_some(())
    })
    .await;
}
