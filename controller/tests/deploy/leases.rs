//! A job whose controller is gone ends, and says why.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use signet_common::messages::Outcome;
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::support::fake_agent::{FakeAgent, ended, exited};
use crate::support::{PATIENCE, TestApp};

on_both_pairs!(
    a_job_without_its_controller_ends,
    no_controller_takes_its_own_job,
    the_time_limit_counts_from_the_start,
    without_ansible_each_host_says_so
);

/// A controller whose Ansible never ends.
pub(crate) async fn with_hanging_ansible(pair: Pair, dir: &Path) -> TestApp {
    let program = hanging_ansible(dir);
    TestApp::start_with(pair.parts().await, |s| s.deploying.ansible_playbook = program).await
}

/// A program that is at work for ever, as is its child.
pub(crate) fn hanging_ansible(dir: &Path) -> PathBuf {
    let program = dir.join("ansible-playbook");
    std::fs::write(&program, "#!/bin/sh\nsleep 1000 &\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    program
}

/// Asks for a job, and gives the path at which it is seen.
pub(crate) async fn asked(app: &TestApp, body: &Value) -> String {
    let made = app.post("/api/v1/jobs", body).await.expect(202);
    format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap())
}

pub(crate) fn body(host: &str) -> Value {
    let auth = json!({ "type": "password", "password": "x" });
    json!({ "git_repo": "https://h/x.git", "dest_path": "/srv/a",
        "targets": [{ "host": host, "username": "u", "auth": auth }] })
}

async fn a_job_without_its_controller_ends(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let app = with_hanging_ansible(pair, dir.path()).await;
    let path = asked(&app, &body("h")).await;
    app.eventually(&path, |job| job["data"]["status"] == "RUNNING").await;
    // As if another controller had it that was not heard of for long.
    app.change("UPDATE jobs SET holder = 'another', lease_until = 1").await;
    let over = app.eventually(&path, |job| job["data"]["status"] == "FAILED").await;
    let why = over["data"]["targets"][0]["reason"].as_str().unwrap();
    assert!(why.contains("controller") && why.contains("gone"), "{why}");
    let log = app.get(&format!("{path}/logs")).await.text;
    assert!(log.contains("fatal: [h]: FAILED! => ") && log.contains(why), "{log}");
    // Another may deploy there now.
    let next = asked(&app, &body("h")).await;
    app.eventually(&next, |job| job["data"]["status"] == "RUNNING").await;
}

/// A lease that ran out while its holder is at work is renewed, and the run is the one that it was.
async fn no_controller_takes_its_own_job(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let app = with_hanging_ansible(pair, dir.path()).await;
    let path = asked(&app, &body("h")).await;
    app.eventually(&path, |job| {
        job["data"]["targets"][0]["status"] != "SUCCESS" && job["data"]["status"] == "RUNNING"
    })
    .await;
    app.change("UPDATE jobs SET lease_until = 1").await;
    eventually(PATIENCE, "the lease to be renewed", async || {
        (app.number("SELECT COUNT(*) FROM jobs WHERE lease_until > 1").await == 1).then_some(())
    })
    .await;
    let job = app.get(&path).await.expect(200);
    assert_eq!(job["data"]["status"], "RUNNING", "{job}");
}

/// A job that another controller left goes on for as long as is left of its time, and no longer.
async fn the_time_limit_counts_from_the_start(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let wanted = json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": "/srv/a",
        "targets": [{ "host": "h1" }], "timeout": 600 });
    let path = asked(&app, &wanted).await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    agent.started(&deploy.jti).await;
    app.eventually(&path, |job| job["data"]["targets"][0]["status"] == "RUNNING").await;
    app.change("UPDATE jobs SET holder = 'another', lease_until = 1, started_at = started_at - 601000000")
        .await;
    assert_eq!(agent.next_cancel().await.cancels, deploy.jti);
    agent.result(&deploy.jti, ended(Outcome::Cancelled)).await;
    let over = app.eventually(&path, |job| job["data"]["status"] == "FAILED").await;
    let why = json!("the job was not done within 600 s");
    assert_eq!(over["data"]["reason"], why, "{over}");
    // Nobody cancelled it.
    let host = &over["data"]["targets"][0];
    assert_eq!((&host["status"], &host["reason"]), (&json!("FAILED"), &why), "{over}");
}

/// Of two controllers one runs a job; when it does not renew its lease the other ends what went with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_two_controllers_share_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let first = with_hanging_ansible(Pair::MariadbRabbitmq, dir.path()).await;
    let second = first.beside().await;
    let mut agent = FakeAgent::enrol(&first, "h1", "web").await;
    let mut wanted = body("192.0.2.1");
    wanted["git_branch"] = "0".repeat(40).into();
    wanted["targets"].as_array_mut().unwrap().push(json!({ "host": "h1" }));
    let path = asked(&first, &wanted).await;
    let deploy = agent.next_deploy().await;
    agent.accepted(&deploy.jti).await;
    // What lies in the path waits, by whatever way the host is reached.
    let mut inside = body("H1");
    inside["dest_path"] = "/srv/a/inside".into();
    inside["targets"][0]["port"] = 2222.into();
    let waiting = asked(&second, &inside).await;
    first.running.app.stop.cancel();
    let left = second.eventually(&path, |job| job["data"]["targets"][0]["status"] == "FAILED").await;
    assert_eq!(left["data"]["status"], "RUNNING", "{left}");
    assert_eq!(second.get(&waiting).await.expect(200)["data"]["status"], "PENDING");
    agent.result(&deploy.jti, exited(0, "", "")).await;
    let over = second.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["targets"][1]["status"], "SUCCESS", "{over}");
    second.eventually(&waiting, |job| job["data"]["status"] != "PENDING").await;
}

async fn without_ansible_each_host_says_so(pair: Pair) {
    let app = TestApp::start_with(pair.parts().await, |settings| {
        settings.deploying.ansible_playbook = "/nonexistent/ansible-playbook".into();
    })
    .await;
    let made = app.post("/api/v1/jobs?wait=30", &body("h")).await.expect(200);
    assert_eq!(made["data"]["status"], "FAILED");
    let path = format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap());
    let job = app.get(&path).await.expect(200);
    let why = job["data"]["targets"][0]["reason"].as_str().unwrap();
    assert!(why.contains("install ansible-core") && why.contains("SIGNET_ANSIBLE_PLAYBOOK"), "{why}");
    let log = app.get(&format!("{path}/logs")).await.text;
    assert!(log.contains("fatal: [h]: FAILED! => ") && log.contains("PLAY RECAP"), "{log}");
}
