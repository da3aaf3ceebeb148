//! Messages that were signed before the transaction that sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use signet_common::time::Micros;
use signet_common::{AgentId, PayloadType, TaskId};
use signet_controller::dispatch::{Audience, Body, Drafts, Kind, Order, Rolling};
use signet_controller::hosts::Target;
use signet_testkit::{Pair, on_both_pairs};

use super::support::TestApp;
use super::support::fake_agent::FakeAgent;

on_both_pairs!(a_draft_counts_while_its_key_and_its_log_are_the_newest);

/// Sends to each of these hosts alone: how many messages were signed beside the drafts, and by how many keys they all are.
async fn sent(
    app: &TestApp,
    hosts: &[&str],
    drafts: &Drafts,
    body: &Body,
    bodies: &AtomicUsize,
) -> (usize, i64) {
    let task = TaskId::generate();
    let before = bodies.load(Ordering::Relaxed);
    let mut tx = app.db().begin().await.unwrap();
    let hosts = Target::Nodes(hosts.iter().map(|host| host.parse().unwrap()).collect());
    let candidates = app.running.app.hosts.candidates(&mut tx, &hosts).await.unwrap();
    let order = Order {
        task_id: &task,
        kind: Kind::Command,
        payload_type: PayloadType::Command,
        now: Micros::now(),
        timeout: 60,
        expires_in: 60,
        rolling: Rolling::default(),
        candidates: &candidates,
        audience: Audience::Alone(&|_| None),
        secret: false,
        features: &[],
        body,
        drafts: Some(drafts),
    };
    let sent = app.running.app.dispatch.send(&mut tx, &order).await.unwrap();
    assert_eq!(sent.tally.iter().map(|(_, count)| count).sum::<u64>(), 3);
    tx.commit().await.unwrap();
    let kinds = app.number("SELECT COUNT(DISTINCT keyid) FROM messages").await;
    app.change("DELETE FROM messages").await;
    (bodies.load(Ordering::Relaxed) - before, kinds)
}

async fn a_draft_counts_while_its_key_and_its_log_are_the_newest(pair: Pair) {
    let app = TestApp::start(pair).await;
    let hosts = ["h1", "h2", "h3"];
    let mut agents: Vec<AgentId> = Vec::new();
    for host in hosts {
        agents.push(FakeAgent::enrol(&app, host, "web").await.id);
    }
    // Each has told something already.
    app.change("UPDATE logs SET seq = 1").await;
    let bodies = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&bodies);
    let body: Body = Arc::new(move |claims| {
        counted.fetch_add(1, Ordering::Relaxed);
        assert_eq!(claims.aud.len(), 1);
        Ok(serde_json::to_vec(&json!({ "aud": claims.aud, "jti": claims.jti })).unwrap())
    });
    let dispatch = &app.running.app.dispatch;
    let draft = async || dispatch.draft(PayloadType::Command, 60, agents.clone(), &body).await.unwrap();
    let drafts = draft().await;
    assert_eq!(bodies.load(Ordering::Relaxed), 3);
    assert_eq!(sent(&app, &hosts, &drafts, &body, &bodies).await, (0, 1));
    let drafts = draft().await;
    // The host begins a new log: it would refuse what was issued before.
    app.change(
        "UPDATE logs SET log_id = '00000000-0000-4000-8000-000000000000' WHERE agent_id = \
        (SELECT agent_id FROM servers WHERE hostname = 'h2')",
    )
    .await;
    assert_eq!(sent(&app, &hosts, &drafts, &body, &bodies).await, (1, 1));
    // A host of which nothing came yet may begin the same log once more.
    app.change(
        "UPDATE logs SET seq = 0 WHERE agent_id = (SELECT agent_id FROM servers WHERE hostname = 'h3')",
    )
    .await;
    let drafts = draft().await;
    assert_eq!(sent(&app, &hosts, &drafts, &body, &bodies).await, (1, 1));
    app.change("UPDATE logs SET seq = 1").await;
    // Nobody signs with a key that is not the newest any more.
    let drafts = draft().await;
    app.post("/api/keys/rotate", &json!({})).await.expect(201);
    assert_eq!(sent(&app, &hosts, &drafts, &body, &bodies).await, (3, 1));
}
