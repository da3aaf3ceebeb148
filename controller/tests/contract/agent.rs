//! The agent that tests play goes the whole way.

use serde_json::json;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;
use crate::support::fake_agent::{FakeAgent, exited};

on_both_pairs!(a_played_agent_enrols_and_answers);

async fn a_played_agent_enrols_and_answers(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "server1", "web").await;
    assert!(agent.broker.is_some());
    let body = json!({ "target_type": "node", "target": "server1", "command": "true" });
    let task = app.post("/api/commands", &body).await.expect(201);
    let command = agent.run_next(exited(3, "out", "err")).await;
    assert_eq!(command.task_id.as_str(), task["task_id"]);
    let path = format!("/api/tasks/{}/results", command.task_id);
    let results = app.eventually(&path, |results| results != &json!([])).await;
    assert_eq!((&results[0]["exit_code"], &results[0]["stderr"]), (&json!(3), &json!("err")));
}
