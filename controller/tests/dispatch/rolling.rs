//! How a deployment goes from batch to batch: canaries, pauses, budgets and orders.

use serde_json::{Value, json};
use signet_common::Jti;
use signet_common::deploy::Deploy;
use signet_common::envelope::PayloadType;
use signet_common::messages::CommandResult;
use signet_common::time::Micros;
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::PATIENCE;
use super::support::TestApp;
use super::support::fake_agent::{FakeAgent, exited};

on_both_pairs!(
    a_canary_that_fails_stops_the_rest,
    a_budget_that_is_used_up_stops_the_rest,
    hosts_go_in_the_order_that_was_asked_for,
    the_next_batch_goes_after_the_pause,
    a_cancel_ends_a_pause,
    what_makes_no_sense_is_refused,
);

async fn agents<const N: usize>(app: &TestApp, hosts: [&str; N]) -> [FakeAgent; N] {
    let mut agents = Vec::new();
    for host in hosts {
        agents.push(FakeAgent::enrol(app, host, "web").await);
    }
    agents.try_into().ok().unwrap()
}

/// Asks for a job for the group with these options; gives its path.
async fn ask(app: &TestApp, options: Value) -> String {
    let mut body = json!({ "git_repo": "https://git.example/r.git", "dest_path": "/srv/app",
        "git_branch": "0123456789abcdef0123456789abcdef01234567", "targets": [{ "group": "web" }] });
    body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let made = app.post("/api/v1/jobs", &body).await.expect(202);
    format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap())
}

/// Takes the next deployment. One that was sent again is passed over.
async fn takes(agent: &mut FakeAgent) -> Jti {
    loop {
        let message = agent.next().await;
        assert_eq!(message.kind(), PayloadType::Deploy);
        let deploy: Deploy = message.parse().unwrap().into_inner();
        if !agent.journal.iter().any(|known| known.event.jti() == Some(&deploy.jti)) {
            return deploy.jti;
        }
    }
}

/// Takes the next deployment and ends it like this.
async fn deploys(agent: &mut FakeAgent, result: CommandResult) {
    let jti = takes(agent).await;
    agent.accepted(&jti).await;
    agent.result(&jti, result).await;
}

/// Waits for the job's end; gives where its targets stand, its reason and its log.
async fn end(app: &TestApp, job: &str) -> (Value, Vec<(String, String)>, String) {
    let over = app.eventually(job, |job| job["data"]["finished_at"].is_string()).await;
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let targets = over["data"]["targets"].as_array().unwrap();
    let targets = targets.iter().map(|t| (word(&t["host"]), word(&t["status"]))).collect();
    (over["data"].clone(), targets, app.get(&format!("{job}/logs")).await.text)
}

fn standing(targets: &[(String, String)]) -> Vec<(&str, &str)> {
    targets.iter().map(|(host, status)| (host.as_str(), status.as_str())).collect()
}

/// Waits until the log has this line.
async fn says(app: &TestApp, job: &str, line: &str) {
    eventually(PATIENCE, line, async || {
        let log = app.get(&format!("{job}/logs")).await.text;
        log.lines().any(|l| l == line).then_some(())
    })
    .await;
}

async fn a_canary_that_fails_stops_the_rest(pair: Pair) {
    let app = TestApp::start(pair).await;
    let [_first, mut second, _third] = agents(&app, ["h1", "h2", "h3"]).await;
    let job = ask(&app, json!({ "canary": ["h2"], "max_failures": 9 })).await;
    deploys(&mut second, exited(1, "", "no\n")).await;
    let (detail, targets, log) = end(&app, &job).await;
    assert_eq!(standing(&targets), [("h1", "SKIPPED"), ("h2", "FAILED"), ("h3", "SKIPPED")], "{log}");
    assert_eq!((&detail["status"], &detail["canary"]), (&json!("FAILED"), &json!(["h2"])));
    assert_eq!(detail["reason"], "canary h2 failed: 2 hosts are skipped");
    for line in ["canary h2 failed: 2 hosts are skipped", "skipping: [h1]", "skipping: [h3]"] {
        assert!(log.lines().any(|l| l == line), "no {line}: {log}");
    }
    assert_eq!(detail["targets"][0]["reason"], "canary");
}

async fn a_budget_that_is_used_up_stops_the_rest(pair: Pair) {
    let app = TestApp::start(pair).await;
    let [mut first, _second, _third] = agents(&app, ["h1", "h2", "h3"]).await;
    let job = ask(&app, json!({ "run_mode": "serial", "max_failures": 0 })).await;
    deploys(&mut first, exited(1, "", "")).await;
    let (detail, targets, log) = end(&app, &job).await;
    assert_eq!(standing(&targets), [("h1", "FAILED"), ("h2", "SKIPPED"), ("h3", "SKIPPED")], "{log}");
    assert_eq!(detail["reason"], "1 host failed, and max_failures is 0: 2 hosts are skipped");
    assert_eq!(detail["targets"][2]["reason"], "max_failures");
}

async fn hosts_go_in_the_order_that_was_asked_for(pair: Pair) {
    let app = TestApp::start(pair).await;
    let [mut first, mut second, mut third] = agents(&app, ["h1", "h2", "h3"]).await;
    let job = ask(&app, json!({ "run_mode": "serial", "order": "reverse", "canary": ["h2"] })).await;
    let waiting = "SELECT COUNT(*) FROM deliveries WHERE state = 'waiting'";
    for (agent, left) in [(&mut second, 2), (&mut third, 1), (&mut first, 0)] {
        let jti = takes(agent).await;
        assert_eq!(app.number(waiting).await, left);
        agent.accepted(&jti).await;
        agent.result(&jti, exited(0, "", "")).await;
    }
    let (detail, targets, log) = end(&app, &job).await;
    assert_eq!(standing(&targets), [("h1", "SUCCESS"), ("h2", "SUCCESS"), ("h3", "SUCCESS")], "{log}");
    assert_eq!((&detail["order"], &detail["reason"]), (&json!("reverse"), &Value::Null));
}

const NEXT_AT: &str = "SELECT COALESCE(MAX(next_at), 0) FROM dispatches";

async fn the_next_batch_goes_after_the_pause(pair: Pair) {
    let app = TestApp::start(pair).await;
    let [mut first, mut second] = agents(&app, ["h1", "h2"]).await;
    let job = ask(&app, json!({ "canary": 1, "pause": 3_600 })).await;
    deploys(&mut first, exited(0, "", "")).await;
    says(&app, &job, "pause of 3600 s").await;
    let next_at = app.number(NEXT_AT).await;
    assert!(next_at > Micros::now().plus_seconds(3_000).0);
    // As if it had been shorter.
    app.change("UPDATE dispatches SET next_at = next_at - 3598000000").await;
    let next_at = next_at - 3_598_000_000;
    deploys(&mut second, exited(0, "", "")).await;
    assert!(Micros::now().0 >= next_at, "it went before its time");
    let (_, targets, log) = end(&app, &job).await;
    assert_eq!(standing(&targets), [("h1", "SUCCESS"), ("h2", "SUCCESS")], "{log}");
    assert_eq!(log.matches("pause of").count(), 1, "there is none after the last batch: {log}");
    assert_eq!(app.number(NEXT_AT).await, 0);
}

async fn a_cancel_ends_a_pause(pair: Pair) {
    let app = TestApp::start(pair).await;
    let [mut first, mut second] = agents(&app, ["h1", "h2"]).await;
    let job = ask(&app, json!({ "batch": 1, "pause": 3_600 })).await;
    deploys(&mut first, exited(0, "", "")).await;
    says(&app, &job, "pause of 3600 s").await;
    app.post(&format!("{job}/cancel"), &json!({})).await.expect(202);
    let (detail, targets, log) = end(&app, &job).await;
    assert_eq!(standing(&targets), [("h1", "SUCCESS"), ("h2", "CANCELLED")], "{log}");
    assert_eq!(detail["status"], "CANCELLED");
    assert!(second.try_next().await.is_none());
}

async fn what_makes_no_sense_is_refused(pair: Pair) {
    let app = TestApp::start(pair).await;
    agents(&app, ["h1", "h2"]).await;
    let over_ssh = json!({ "host": "192.0.2.1", "username": "u",
        "auth": { "type": "password", "password": "x-secret" } });
    let mixed = json!([{ "host": "h1" }, over_ssh]);
    let cases = [
        (json!({ "canary": ["h1", "h9"] }), "canary[1]"),
        (json!({ "canary": 0 }), "canary"),
        (json!({ "canary": [] }), "canary"),
        (json!({ "pause": 5 }), "pause"),
        (json!({ "batch": 1, "pause": 43_201 }), "pause"),
        (json!({ "batch": 1, "pause": 43_200, "timeout": 43_201 }), "pause"),
        (json!({ "order": "sideways" }), "order"),
        (json!({ "targets": mixed, "batch": 1 }), "batch"),
        (json!({ "targets": mixed, "max_failures": 0 }), "max_failures"),
        (json!({ "targets": mixed, "canary": 1 }), "canary"),
        (json!({ "targets": mixed, "order": "name" }), "order"),
    ];
    for (options, field) in cases {
        let mut body = json!({ "git_repo": "https://git.example/r.git", "dest_path": "/srv/app",
            "targets": [{ "group": "web" }] });
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let wrong = app.post("/api/v1/jobs", &body).await.expect(422);
        let fields: Vec<&String> = wrong["error"]["details"].as_object().unwrap().keys().collect();
        assert_eq!(fields, [field], "{options} {wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_pause_outlives_its_controller() {
    let first = TestApp::start(Pair::MariadbRabbitmq).await;
    let second = first.beside().await;
    let [mut one, mut two] = agents(&first, ["h1", "h2"]).await;
    let job = ask(&first, json!({ "batch": 1, "pause": 3_600 })).await;
    deploys(&mut one, exited(0, "", "")).await;
    says(&first, &job, "pause of 3600 s").await;
    let next_at = first.number(NEXT_AT).await;
    first.running.app.stop.cancel();
    drop(first);
    // Whoever sweeps now goes by the moment that is stored, and nothing begins the pause anew.
    assert_eq!(second.number(NEXT_AT).await, next_at);
    assert!(two.try_next().await.is_none());
    second.change("UPDATE dispatches SET next_at = 1").await;
    deploys(&mut two, exited(0, "", "")).await;
    let (_, targets, log) = end(&second, &job).await;
    assert_eq!(standing(&targets), [("h1", "SUCCESS"), ("h2", "SUCCESS")], "{log}");
    assert_eq!(log.matches("pause of").count(), 1, "{log}");
}
