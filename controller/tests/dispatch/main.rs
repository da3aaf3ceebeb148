//! Dispatch from the POST to the result, on both pairs, with agents that the tests play: what is sent when, what a
//! report is worth, and what happens to hosts that lost or doubled their past.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "code for tests alone: what goes wrong fails the test, with its reason"
)]

#[path = "../support/mod.rs"]
mod support;

mod broker_users;
mod drafts;
mod ends;
mod hellos;
mod joining;
mod leaving;
mod logs;
mod many;
mod output;
mod preflight;
mod rolling;
mod rotation;
mod sending;
mod two;

use serde_json::{Value, json};
use signet_testkit::eventually;
use support::{PATIENCE, TestApp};

/// Asks for a command and gives the task's id.
async fn ask(app: &TestApp, body: Value) -> String {
    let task = app.post("/api/commands", &body).await.expect(201);
    task["task_id"].as_str().unwrap().to_owned()
}

async fn ask_all(app: &TestApp, command: &str) -> String {
    ask(app, json!({"target_type": "all", "command": command})).await
}

async fn ask_node(app: &TestApp, host: &str) -> String {
    ask(app, json!({"target_type": "node", "target": host, "command": "true"})).await
}

async fn task(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/api/tasks/{id}")).await.expect(200)
}

/// Waits until a target of the task is in this state, and gives the target.
async fn target_in(app: &TestApp, id: &str, host: &str, state: &str) -> Value {
    let what = format!("{host} to be {state} in {id}");
    eventually(PATIENCE, &what, async || {
        let detail = task(app, id).await;
        let found = detail["targets"].as_array().unwrap().iter().find(|t| t["hostname"] == host)?.clone();
        (found["state"] == state).then_some(found)
    })
    .await
}

/// What the host's page says.
async fn server(app: &TestApp, host: &str) -> Value {
    app.get(&format!("/api/servers/{host}")).await.expect(200)
}
