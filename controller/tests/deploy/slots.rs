//! How many jobs a controller runs, and what waits for what.

use serde_json::json;
use signet_testkit::{Pair, on_both_pairs};

use crate::leases::{asked, body, with_hanging_ansible};
use crate::support::TestApp;
use crate::support::fake_agent::FakeAgent;

on_both_pairs!(what_waits_holds_up_nobody_else, what_is_over_over_ssh_makes_room);

async fn what_waits_holds_up_nobody_else(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let app = with_hanging_ansible(pair, dir.path()).await;
    let _agent = FakeAgent::enrol(&app, "h1", "web").await;
    let running = async |path: &str| app.eventually(path, |job| job["data"]["status"] == "RUNNING").await;
    let first = asked(&app, &body("h")).await;
    running(&first).await;
    // More than are read at a time, none of which can begin: each lies where one is at work.
    let mut inside = body("h");
    let mut stuck = Vec::new();
    for n in 0..120 {
        inside["dest_path"] = format!("/srv/a/{n}").into();
        stuck.push(asked(&app, &inside).await);
    }
    // Other hosts, and the same under another port, are not held up: not even by more of them than run at once.
    let mut elsewhere = body("h");
    elsewhere["targets"][0]["port"] = 2222.into();
    running(&asked(&app, &elsewhere).await).await;
    let mut heavy = Vec::new();
    for n in 0..8 {
        heavy.push(asked(&app, &body(&format!("other{n}"))).await);
    }
    running(&heavy[5]).await;
    // The agents' jobs are not held up by those over SSH, nor by one another.
    for n in 0..9 {
        let body = json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40),
            "dest_path": format!("/srv/{n}"), "targets": [{ "host": "h1" }] });
        running(&asked(&app, &body).await).await;
    }
    assert_eq!(app.get(&heavy[6]).await.expect(200)["data"]["status"], "PENDING");
    assert_eq!(app.get(&stuck[0]).await.expect(200)["data"]["status"], "PENDING");
    // Two that lie beside one another begin once what holds both of them is over; the first goes first.
    app.post(&format!("{first}/cancel"), &json!({})).await.expect(202);
    running(&stuck[0]).await;
}

/// A job that waits for its agents alone is no longer one over SSH.
async fn what_is_over_over_ssh_makes_room(pair: Pair) {
    let app = TestApp::start_with(pair.parts().await, |settings| {
        settings.deploying.ansible_playbook = "/nonexistent/ansible-playbook".into();
    })
    .await;
    let _agent = FakeAgent::enrol(&app, "h1", "web").await;
    for n in 0..10 {
        let mut mixed = body(&format!("other{n}"));
        mixed["git_branch"] = "0".repeat(40).into();
        mixed["dest_path"] = format!("/srv/{n}").into();
        mixed["targets"].as_array_mut().unwrap().push(json!({ "host": "h1" }));
        let path = asked(&app, &mixed).await;
        let job = app.eventually(&path, |job| job["data"]["targets"][0]["status"] == "FAILED").await;
        assert_eq!(job["data"]["status"], "RUNNING", "{job}");
    }
}
