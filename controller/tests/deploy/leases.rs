//! A job whose controller is gone ends, and says why.

use serde_json::{Value, json};
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;

on_both_pairs!(a_job_without_its_controller_ends, without_ansible_each_host_says_so);

fn body(host: &str) -> Value {
    let auth = json!({ "type": "password", "password": "x" });
    json!({ "git_repo": "https://h/x.git", "dest_path": "/srv/a",
        "targets": [{ "host": host, "username": "u", "auth": auth }] })
}

async fn a_job_without_its_controller_ends(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("ansible-playbook");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let app =
        TestApp::start_with(pair.parts().await, |s| s.deploying.ansible_playbook = program.clone()).await;
    let id =
        app.post("/api/v1/jobs", &body("h")).await.expect(202)["data"]["job_id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/jobs/{id}");
    app.eventually(&path, |job| job["data"]["status"] == "RUNNING").await;
    // As if another controller had it that was not heard of for long.
    app.change("UPDATE jobs SET holder = 'another', lease_until = 1").await;
    let over = app.eventually(&path, |job| job["data"]["status"] == "FAILED").await;
    let why = over["data"]["targets"][0]["reason"].as_str().unwrap();
    assert!(why.contains("controller") && why.contains("gone"), "{why}");
    let log = app.get(&format!("{path}/logs")).await.text;
    assert!(log.contains("fatal: [h]: FAILED! => ") && log.contains(why), "{log}");
    // Another may deploy there now.
    let next =
        app.post("/api/v1/jobs", &body("h")).await.expect(202)["data"]["job_id"].as_str().unwrap().to_owned();
    app.eventually(&format!("/api/v1/jobs/{next}"), |job| job["data"]["status"] == "RUNNING").await;
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
