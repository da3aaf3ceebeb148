//! What is sent to whom, when, and what is not.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use signet_common::bus::Health;
use signet_common::messages::{BusyReason, Event, Outcome};
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::support::fake_agent::{FakeAgent, ended, exited};
use super::support::moody_bus::MoodyBus;
use super::support::{PATIENCE, TestApp};
use super::{ask, ask_all, ask_node, server, target_in, task};

on_both_pairs!(
    a_server_without_an_agent_is_refused_at_once,
    an_offline_host_gets_its_work_when_it_comes,
    at_most_two_hundred_wait_at_a_host,
    the_pause_switch_holds_commands_and_not_cancels,
    a_clock_that_is_off_holds_dispatch,
    without_a_broker_commands_wait,
    a_host_that_takes_no_work_gets_none,
    a_sent_command_is_cancelled_on_the_agents_word,
    an_unsent_command_is_cancelled_for_certain,
    batches_go_one_after_another,
    the_failure_budget_ends_the_rest,
    a_wiped_broker_loses_nothing,
    a_replaced_key_gets_nothing_new_and_still_reports,
    a_removed_server_ends_what_it_had,
    a_feature_that_an_agent_lacks_is_not_sent,
);

async fn a_server_without_an_agent_is_refused_at_once(pair: Pair) {
    let app = TestApp::start(pair).await;
    app.post("/api/servers", &json!({"hostname": "bare", "ip": "10.0.0.1"})).await.expect(201);
    let id = ask_node(&app, "bare").await;
    let detail = task(&app, &id).await;
    assert_eq!(
        (&detail["status"], &detail["targets"][0]["reason"]),
        (&json!("rejected"), &json!("no_agent"))
    );
    let results = app.get(&format!("/api/tasks/{id}/results")).await.expect(200);
    assert_eq!((&results[0]["exit_code"], &results[0]["stderr"]), (&json!(-1), &json!("no_agent")));
}

async fn an_offline_host_gets_its_work_when_it_comes(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::new(&app, "late", "web").await;
    agent.hello(&app).await;
    agent.consume().await;
    let id = ask_node(&app, "late").await;
    assert_eq!(target_in(&app, &id, "late", "waiting").await["reason"], "");
    agent.heartbeat().await;
    agent.run_next(exited(0, "here\n", "")).await;
    target_in(&app, &id, "late", "succeeded").await;
    assert_eq!(task(&app, &id).await["status"], "done");
}

async fn at_most_two_hundred_wait_at_a_host(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::new(&app, "slow", "web").await;
    agent.hello(&app).await;
    agent.consume().await;
    for _ in 0..203 {
        ask_node(&app, "slow").await;
    }
    agent.heartbeat().await;
    let mut taken = BTreeSet::new();
    while taken.len() < 200 {
        taken.insert(agent.next_command().await.jti);
    }
    let waiting = "SELECT COUNT(*) FROM deliveries WHERE state = 'waiting'";
    assert_eq!(app.number(waiting).await, 3, "a 201st was sent before one was accepted");
    agent.accepted(taken.first().unwrap()).await;
    eventually(PATIENCE, "the 201st", async || taken.insert(agent.next_command().await.jti).then_some(()))
        .await;
    assert_eq!(app.number(waiting).await, 2);
}

async fn the_pause_switch_holds_commands_and_not_cancels(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let before = ask_all(&app, "sleep 100").await;
    let running = agent.next_command().await.jti;
    agent.accepted(&running).await;
    app.put("/api/dispatch", &json!({"paused": true, "reason": "change freeze"})).await.expect(200);
    let held = app.post("/api/commands", &json!({"target_type": "all", "command": "true"})).await.expect(201);
    assert_eq!(held["status"], "pending");
    let id = held["task_id"].as_str().unwrap();
    assert!(task(&app, id).await["paused"].as_str().unwrap().contains("change freeze"));
    app.post(&format!("/api/tasks/{before}/cancel"), &json!({})).await.expect(200);
    assert_eq!(agent.next_cancel().await.cancels, running);
    target_in(&app, id, "h1", "waiting").await;
    app.put("/api/dispatch", &json!({"paused": false})).await.expect(200);
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, id, "h1", "succeeded").await;
}

async fn without_a_broker_commands_wait(pair: Pair) {
    let parts = pair.parts().await;
    let bus = Arc::new(MoodyBus::new(parts.controller_bus().await));
    let app = TestApp::start_on(parts, bus.clone(), |_| {}).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    bus.set(Health::Down);
    let id = ask_all(&app, "true").await;
    assert_eq!(target_in(&app, &id, "h1", "waiting").await["reason"], "");
    assert_eq!(task(&app, &id).await["status"], "pending");
    bus.set(Health::Up);
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
}

async fn a_clock_that_is_off_holds_dispatch(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    agent.heartbeat_with(|h| h.iat -= 300).await;
    eventually(PATIENCE, "the offset to be seen", async || {
        let offset = server(&app, "h1").await["agent"]["clock_offset_ms"].as_i64().unwrap();
        (offset < -290_000).then_some(())
    })
    .await;
    let id = ask_all(&app, "true").await;
    target_in(&app, &id, "h1", "waiting").await;
    agent.heartbeat().await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
}

async fn a_host_that_takes_no_work_gets_none(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    agent.heartbeat_with(|h| h.busy = Some(BusyReason::DiskFull)).await;
    eventually(PATIENCE, "busy to be seen", async || {
        (server(&app, "h1").await["agent"]["busy"] == "disk_full").then_some(())
    })
    .await;
    let id = ask_all(&app, "true").await;
    target_in(&app, &id, "h1", "waiting").await;
    agent.heartbeat().await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
}

async fn a_sent_command_is_cancelled_on_the_agents_word(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_all(&app, "sleep 100").await;
    let command = agent.next_command().await;
    let asked = app.post(&format!("/api/tasks/{id}/cancel"), &json!({})).await.expect(200);
    assert_eq!(
        (&asked["targets"][0]["state"], &asked["targets"][0]["cancelling"]),
        (&json!("sent"), &json!(true))
    );
    let cancel = agent.next_cancel().await;
    assert_eq!((cancel.cancels, cancel.cancels_exp), (command.jti.clone(), command.exp));
    agent.result(&command.jti, ended(Outcome::Cancelled)).await;
    target_in(&app, &id, "h1", "cancelled").await;
    assert_eq!(task(&app, &id).await["status"], "cancelled");
}

async fn an_unsent_command_is_cancelled_for_certain(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::new(&app, "h1", "web").await;
    agent.hello(&app).await;
    agent.consume().await;
    let id = ask_node(&app, "h1").await;
    let asked = app.post(&format!("/api/tasks/{id}/cancel"), &json!({})).await.expect(200);
    assert_eq!((&asked["status"], &asked["targets"][0]["state"]), (&json!("cancelled"), &json!("cancelled")));
    agent.come_online(&app).await;
    let second = ask_node(&app, "h1").await;
    let command = agent.next_command().await;
    assert_eq!(command.task_id.as_str(), second, "the cancelled one was sent");
}

async fn batches_go_one_after_another(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        agents.push(FakeAgent::enrol(&app, name, "web").await);
    }
    let body = json!({"target_type": "group", "target": "web", "command": "true", "batch": 2});
    let id = ask(&app, body).await;
    agents[0].run_next(exited(0, "", "")).await;
    target_in(&app, &id, "a", "succeeded").await;
    target_in(&app, &id, "c", "waiting").await;
    agents[1].run_next(exited(0, "", "")).await;
    agents[2].run_next(exited(0, "", "")).await;
    target_in(&app, &id, "c", "succeeded").await;
}

async fn the_failure_budget_ends_the_rest(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c"] {
        agents.push(FakeAgent::enrol(&app, name, "web").await);
    }
    let body = json!({"target_type": "all", "command": "false", "batch": "30%", "max_failures": 0});
    let id = ask(&app, body).await;
    agents[0].run_next(exited(1, "", "no\n")).await;
    let rest = target_in(&app, &id, "c", "cancelled").await;
    assert_eq!(rest["reason"], "max_failures");
    target_in(&app, &id, "b", "cancelled").await;
    assert_eq!(task(&app, &id).await["status"], "done");
}

async fn a_wiped_broker_loses_nothing(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    agent.leave();
    let id = ask_all(&app, "true").await;
    target_in(&app, &id, "h1", "sent").await;
    app.parts.wipe_broker().await;
    eventually(PATIENCE, "a hello to make the queue again", async || {
        let hello = agent.draft(&app).await;
        (agent.say(&app, &hello).await.status.as_u16() == 200).then_some(())
    })
    .await;
    agent.consume().await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
}

async fn a_replaced_key_gets_nothing_new_and_still_reports(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut old = FakeAgent::enrol(&app, "h1", "web").await;
    let sent = ask_node(&app, "h1").await;
    let command = old.next_command().await;
    old.heartbeat_with(|h| h.busy = Some(BusyReason::QueueFull)).await;
    eventually(PATIENCE, "busy to be seen", async || {
        (server(&app, "h1").await["agent"]["busy"] == "queue_full").then_some(())
    })
    .await;
    let unsent = ask_node(&app, "h1").await;
    let pem = app.agent_key().public().to_pem();
    app.put("/api/client-keys/h1", &json!({"public_key_pem": pem})).await.expect(200);
    assert_eq!(target_in(&app, &unsent, "h1", "rejected").await["reason"], "key replaced");
    old.report([
        Event::Accepted { jti: command.jti.clone(), at: 1 },
        Event::Result { jti: command.jti.clone(), at: 2, result: Box::new(exited(0, "", "")) },
    ])
    .await;
    target_in(&app, &sent, "h1", "succeeded").await;
}

async fn a_removed_server_ends_what_it_had(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    agent.next_command().await;
    let gone = TestApp::send(app.request(reqwest::Method::DELETE, "/api/servers/h1")).await;
    assert_eq!(gone.status.as_u16(), 204, "{}", gone.text);
    let lost = target_in(&app, &id, "h1", "lost").await;
    assert_eq!(lost["reason"], "host removed; it may have run");
    let hello = agent.draft(&app).await;
    assert_eq!(agent.say(&app, &hello).await.status.as_u16(), 403);
}

async fn a_feature_that_an_agent_lacks_is_not_sent(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    agent.heartbeat_with(|h| h.features.retain(|f| f != "stdin")).await;
    eventually(PATIENCE, "the features to be seen", async || {
        let detail = server(&app, "h1").await;
        let features = detail["agent"]["features"].as_array().unwrap().clone();
        (!features.contains(&json!("stdin"))).then_some(())
    })
    .await;
    let id = ask(&app, json!({"target_type": "all", "command": "cat", "stdin": "x"})).await;
    let refused = target_in(&app, &id, "h1", "rejected").await;
    assert!(refused["reason"].as_str().unwrap().contains("stdin"), "{refused}");
}
