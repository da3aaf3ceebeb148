//! How much is kept of a job, and for how long.

use serde_json::{Value, json};
use signet_common::time::Micros;
use signet_testkit::{Pair, on_both_pairs};

use crate::leases::asked;
use crate::support::TestApp;
use crate::support::fake_agent::{FakeAgent, exited};

on_both_pairs!(
    a_log_has_bounds,
    a_log_is_bounded_in_bytes,
    what_is_old_goes_piece_by_piece,
    what_only_agents_did_can_always_be_retried
);

fn to_h1() -> Value {
    json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": "/srv/a",
        "targets": [{ "host": "h1" }] })
}

async fn a_log_has_bounds(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let path = asked(&app, &to_h1()).await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    app.eventually(&format!("{path}/logs?format=json"), |log| log["data"]["next_from_id"] == 3).await;
    // Room for two lines is left of 200,000.
    app.change("UPDATE jobs SET last_line = 199998").await;
    agent.result(&deploy.jti, exited(0, &"one\ntwo\n".repeat(200), "")).await;
    app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    let log = app.get(&format!("{path}/logs?format=json&from_id=199998")).await.expect(200);
    let lines: Vec<&str> =
        log["data"]["lines"].as_array().unwrap().iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(
        lines[..4],
        ["one", "two", "(more than 200000 lines or 64 MiB: the rest is not kept)", "ok: [h1]"]
    );
    assert!(lines[4].starts_with("PLAY RECAP") && lines[5].starts_with("h1 "), "{lines:?}");
    assert_eq!((lines.len(), &log["data"]["finished"]), (6, &json!(true)));

    // A page is bounded in bytes too.
    let path = asked(&app, &to_h1()).await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.result(&deploy.jti, exited(0, &"short\n".repeat(400), "")).await;
    app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    let long = format!(
        "UPDATE job_lines SET line = '{}' WHERE job_id = 2 AND id BETWEEN 4 AND 403",
        "x".repeat(15_000)
    );
    app.change(Box::leak(long.into_boxed_str())).await;
    let (mut from, mut pages, mut found) = (0, 0, 0);
    loop {
        let answer = app.get(&format!("{path}/logs?format=json&from_id={from}")).await;
        assert!(answer.text.len() < 4_500_000, "{}", answer.text.len());
        let log = answer.expect(200);
        let lines = log["data"]["lines"].as_array().unwrap();
        assert_eq!(lines[0]["id"], from + 1);
        from = log["data"]["next_from_id"].as_i64().unwrap();
        (pages, found) = (pages + 1, found + lines.len());
        if log["data"]["finished"] == true {
            break;
        }
    }
    assert_eq!((pages, found), (2, 406));
}

/// The texts of a log behind its first three lines.
async fn told(app: &TestApp, path: &str) -> Vec<String> {
    let log = app.get(&format!("{path}/logs?format=json&from_id=3")).await.expect(200);
    log["data"]["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["line"].as_str().unwrap().to_owned())
        .collect()
}

async fn a_log_is_bounded_in_bytes(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let path = asked(&app, &to_h1()).await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    app.eventually(&format!("{path}/logs?format=json"), |log| log["data"]["next_from_id"] == 3).await;
    assert!(app.number("SELECT log_bytes FROM jobs").await > 0);
    // Room for six bytes is left of 64 MiB.
    app.change("UPDATE jobs SET log_bytes = 67108858").await;
    agent.result(&deploy.jti, exited(0, "one\ntwo2\nend\n", "")).await;
    app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    let lines = told(&app, &path).await;
    let wanted = ["one", "(more than 200000 lines or 64 MiB: the rest is not kept)", "ok: [h1]"];
    assert_eq!(lines[..3], wanted, "{lines:?}");
    assert!(lines[3].starts_with("PLAY RECAP") && lines.len() == 5, "{lines:?}");
}

async fn what_is_old_goes_piece_by_piece(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    for _ in 0..2 {
        let path = asked(&app, &to_h1()).await;
        let deploy = agent.next_deploy().await;
        agent.accepted(&deploy.jti).await;
        agent.result(&deploy.jti, exited(0, &"line\n".repeat(900), "")).await;
        app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    }
    let count = async || app.number("SELECT COUNT(*) FROM job_lines").await;
    let jobs = async || app.number("SELECT COUNT(*) FROM jobs").await;
    let all = count().await;
    assert!((1_800..1_999).contains(&all), "{all}");
    let never = Micros::from_seconds(1_000);
    assert!(!app.running.app.jobs.forget_old(never).await.unwrap());
    app.change("UPDATE jobs SET finished_at = 1").await;
    // A thousand lines at a time, and each job once its last line is gone.
    assert!(app.running.app.jobs.forget_old(never).await.unwrap());
    assert_eq!((count().await, jobs().await), (all - 1_000, 1));
    assert!(!app.running.app.jobs.forget_old(never).await.unwrap());
    assert_eq!((count().await, jobs().await), (0, 0));
    assert_eq!(app.number("SELECT COUNT(*) FROM job_targets").await, 0);
}

async fn what_only_agents_did_can_always_be_retried(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let path = asked(&app, &to_h1()).await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    // As after a week.
    app.change("DELETE FROM job_secrets").await;
    let again = app.post(&format!("{path}/retry"), &json!({})).await.expect(202);
    let again = format!("/api/v1/jobs/{}", again["data"]["job_id"].as_str().unwrap());
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.result(&deploy.jti, exited(0, "", "")).await;
    app.eventually(&again, |job| job["data"]["status"] == "SUCCESS").await;
}
