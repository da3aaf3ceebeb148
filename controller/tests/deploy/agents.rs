//! Hosts with agents, when something goes wrong beside them.

use serde_json::{Value, json};
use signet_testkit::{Pair, eventually};

use crate::leases::asked;
use crate::support::fake_agent::{FakeAgent, exited};
use crate::support::{PATIENCE, TestApp};

fn body() -> Value {
    json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": "/srv/a",
        "targets": [{ "host": "h1" }] })
}

/// Once the controller is about to send the job's messages.
async fn about_to_send(app: &TestApp, path: &str) {
    app.eventually(path, |job| job["data"]["commit"].is_string()).await;
    // Its lease is one that was renewed a moment ago, or never.
    for _ in 0..20 {
        let job = app.get(path).await.expect(200);
        assert_eq!(job["data"]["status"], "RUNNING", "{job}");
    }
}

/// What the database refuses once is tried again, and no host is told to be over before it is.
#[tokio::test]
async fn a_database_that_fails_for_a_moment_ends_no_job() {
    let app = TestApp::start(Pair::SqliteMemory).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    app.change(
        "CREATE TRIGGER broken BEFORE INSERT ON dispatches \
         BEGIN INSERT INTO counters (name, last) VALUES ('jobs', 0); END",
    )
    .await;
    let path = asked(&app, &body()).await;
    about_to_send(&app, &path).await;
    app.change("DROP TRIGGER broken").await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    let over = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["status"], "SUCCESS", "{over}");
    let log = app.get(&format!("{path}/logs")).await.text;
    assert_eq!((log.matches("PLAY [all]").count(), log.matches("PLAY RECAP").count()), (1, 1), "{log}");
}

/// A controller that lost a job while it was about to send sends nothing, and leaves the job's end to who has it.
#[tokio::test]
async fn who_lost_a_job_sends_nothing_of_it() {
    let app = TestApp::start(Pair::SqliteMemory).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    app.change(
        "CREATE TRIGGER taken AFTER INSERT ON dispatches BEGIN UPDATE jobs SET holder = 'another'; END",
    )
    .await;
    let path = asked(&app, &body()).await;
    about_to_send(&app, &path).await;
    assert_eq!(app.number("SELECT COUNT(*) FROM dispatches").await, 0);
    assert!(agent.try_next().await.is_none());
    app.change("DROP TRIGGER taken").await;
    // It is nobody's once its lease ran out.
    eventually(PATIENCE, "the job to be taken again", async || {
        app.change("UPDATE jobs SET lease_until = 1").await;
        (app.number("SELECT COUNT(*) FROM dispatches").await == 1).then_some(())
    })
    .await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    let over = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["status"], "SUCCESS", "{over}");
}
