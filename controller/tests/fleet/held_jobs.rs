//! Deployments that wait until other people agreed, on hosts that check it themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signet_common::time::Micros;
use signet_testkit::eventually;
use signet_testkit::ssh::SshKey;

use super::deploys::{Site, statuses};
use super::support::PATIENCE;
use super::visitor::Visitor;

/// A deployment to a host that needs one approval, once it waits.
pub async fn asked(site: &Site, body: &Value) -> (String, Value) {
    let made = site.app.post("/api/v1/jobs", body).await.expect(202)["data"].take();
    let id = made["job_id"].as_str().unwrap().to_owned();
    let job = waiting(site, &id).await;
    (id, job)
}

/// A job, once it waits.
pub async fn waiting(site: &Site, id: &str) -> Value {
    let waits = |job: &Value| {
        assert!(job["data"]["finished_at"].is_null(), "it never waited: {job}");
        job["data"]["approval"]["state"] == "awaiting"
    };
    site.app.eventually(&format!("/api/v1/jobs/{id}"), waits).await["data"].take()
}

pub async fn ended(site: &Site, id: &str) -> (Value, String) {
    let path = format!("/api/v1/jobs/{id}");
    site.app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    site.shown(id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_deployment_waits_for_others() {
    let site = Site::start().await;
    let alice = SshKey::ed25519(site.dir.path(), "alice");
    let line = format!("alice {}", alice.public);
    let policy = format!("[approvers]\ncount = 1\nallowed_signers = '''\n{line}\n'''\n");
    let _agent = site.agent_with("h1", &policy).await;
    // What was asked for in the second in which a host's log began may have been used before it.
    let began = Micros::now().seconds();
    eventually(PATIENCE, "the next second", async || (Micros::now().seconds() > began).then_some(())).await;
    let body = site.body("app", json!([{ "host": "h1" }]));
    // The host believes nobody but its approvers: without a rule it refuses.
    let (job, _) = site.run(&body).await;
    assert_eq!(statuses(&job), ["FAILED"]);
    assert!(job["targets"][0]["reason"].as_str().unwrap().contains("approvals"), "{job}");
    let rule = json!({ "target": { "group": "web" }, "approvals": 1, "kinds": ["deploy"] });
    site.app.post("/api/approval-rules", &rule).await.expect(201);
    let person = Visitor::new(&site.app, "alice", "operator").await;
    let key = json!({ "public_key": alice.public });
    person.post(&site.app, "/api/approver-keys", &key).await.expect(201);

    let (id, job) = asked(&site, &body).await;
    assert_eq!((&job["status"], &job["started_at"]), (&json!("PENDING"), &Value::Null), "{job}");
    let commit = job["commit"].as_str().unwrap();
    // What is agreed to names the commit, whatever the branch becomes meanwhile.
    site.commit("later");
    let path = format!("/api/approvals/{id}");
    let request = person.get(&site.app, &path).await.expect(200);
    assert_eq!((&request["kind"], &request["message"]["commit"]), (&json!("deploy"), &json!(commit)));
    let digest = request["digest"].clone();
    let own = site.app.post(&format!("{path}/approve"), &json!({ "digest": digest })).await;
    assert_eq!(own.status, 403, "who asked for it can't approve it: {}", own.text);
    // Another deployment to another place is not held up by one that waits.
    let (other, _) = asked(&site, &site.body("other", json!([{ "host": "h1" }]))).await;
    let statement = STANDARD.decode(request["statement"].as_str().unwrap()).unwrap();
    let signature = alice.sign("signet-approval", &statement, &[]);
    let word = json!({ "digest": digest, "signature": signature });
    person.post(&site.app, &format!("{path}/approve"), &word).await.expect(200);
    let (job, log) = ended(&site, &id).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{job} {log}");
    assert_eq!(job["targets"][0]["commit"], commit);
    assert_eq!(std::fs::read_to_string(site.place().join("app/file")).unwrap(), "one");
    let how = format!("waits until one other person approved it: signet approve {id}");
    assert!(log.contains(&how), "{log}");
    assert!(log.contains("approved by alice"), "{log}");

    // Refused, it never runs.
    let path = format!("/api/approvals/{other}");
    let digest = person.get(&site.app, &path).await.expect(200)["digest"].take();
    let no = json!({ "digest": digest, "reason": "not now" });
    person.post(&site.app, &format!("{path}/refuse"), &no).await.expect(200);
    let (job, log) = ended(&site, &other).await;
    assert_eq!((&job["status"], statuses(&job)), (&json!("FAILED"), vec!["FAILED"]), "{job} {log}");
    let why = job["targets"][0]["reason"].as_str().unwrap();
    assert!(why.contains("refused by alice: not now"), "{why}");
    assert!(!site.place().join("other").exists());

    // Cancelled while it waits, it can't be approved any more.
    let (id, job) = asked(&site, &body).await;
    site.app.post(&format!("/api/v1/jobs/{id}/cancel"), &json!({})).await.expect(202);
    let word = json!({ "digest": job["approval"]["digest"] });
    let late = person.post(&site.app, &format!("/api/approvals/{id}/approve"), &word).await;
    assert_eq!(late.status, 409, "{}", late.text);
    let (over, log) = ended(&site, &id).await;
    assert_eq!((&over["status"], statuses(&over)), (&json!("CANCELLED"), vec!["CANCELLED"]), "{over} {log}");
    assert!(log.contains("cancelled before it was approved"), "{log}");

    // Not approved in time, it fails, and says so.
    let (id, _) = asked(&site, &body).await;
    site.app.change("UPDATE deliveries SET deadline_at = 1 WHERE state = 'waiting'").await;
    let (job, log) = ended(&site, &id).await;
    assert_eq!(statuses(&job), ["FAILED"], "{job} {log}");
    assert_eq!(job["targets"][0]["reason"], "not approved in time", "{job}");

    // Over SSH no host could check it.
    let auth = json!({ "type": "password", "password": "x-secret" });
    let targets = json!([{ "host": "h1" }, { "host": "192.0.2.9", "username": "u", "auth": auth }]);
    let mixed = site.app.post("/api/v1/jobs", &site.body("app", targets)).await;
    assert_eq!(mixed.status, 409, "{}", mixed.text);
    assert!(mixed.text.contains("over SSH no host could check it"), "{}", mixed.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_what_waits_outlives_its_controller() {
    let site = Site::start().await;
    let _agent = site.agent("h1").await;
    let rule = json!({ "target": "all", "approvals": 1 });
    site.app.post("/api/approval-rules", &rule).await.expect(201);
    let (id, job) = asked(&site, &site.body("app", json!([{ "host": "h1" }]))).await;
    let Site { app, dir } = site;
    let beside = app.beside().await;
    let bob = Visitor::new(&beside, "bob", "operator").await;
    drop(app);
    let word = json!({ "digest": job["approval"]["digest"] });
    bob.post(&beside, &format!("/api/approvals/{id}/approve"), &word).await.expect(200);
    let path = format!("/api/v1/jobs/{id}");
    let over = beside.eventually(&path, |job| job["data"]["finished_at"].is_string()).await["data"].take();
    assert_eq!(statuses(&over), ["SUCCESS"], "{over}");
    assert!(dir.path().join("srv/app/file").exists());
}

/// Approved, a job goes as it would have gone: its canary first, and nobody else when that fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_what_was_held_begins_with_its_canary() {
    let site = Site::start().await;
    let _agents = (site.agent("h1").await, site.agent("h2").await);
    let rule = json!({ "target": "all", "approvals": 1, "kinds": ["deploy"] });
    site.app.post("/api/approval-rules", &rule).await.expect(201);
    let bob = Visitor::new(&site.app, "bob", "operator").await;
    let mut body = site.body("app", json!([{ "group": "web" }]));
    body["strategy"] = "releases".into();
    body["canary"] = json!(["h2"]);
    body["pause"] = 1.into();
    let approved = async |body: &Value| {
        let (id, job) = asked(&site, body).await;
        assert_eq!(job["canary"], json!(["h2"]), "{job}");
        let (_, log) = site.shown(&id).await;
        assert!(!log.contains("[h1]") && !log.contains("[h2]"), "nobody has begun: {log}");
        let word = json!({ "digest": job["approval"]["digest"] });
        bob.post(&site.app, &format!("/api/approvals/{id}/approve"), &word).await.expect(200);
        ended(&site, &id).await
    };
    body["build"] = json!(["false"]);
    let (job, log) = approved(&body).await;
    assert_eq!(statuses(&job), ["SKIPPED", "FAILED"], "{job} {log}");
    assert_eq!(job["reason"], "canary h2 failed: 1 host is skipped");
    assert!(!site.place().join("app/current").exists());

    body["build"] = json!(["true"]);
    let (job, log) = approved(&body).await;
    assert_eq!(statuses(&job), ["SUCCESS", "SUCCESS"], "{job} {log}");
    let turn = |line: &str| log.lines().position(|l| l == line).unwrap_or_else(|| panic!("no {line}: {log}"));
    assert!(turn("changed: [h2]") < turn("pause of 1 s") && turn("pause of 1 s") < turn("ok: [h1]"), "{log}");
    turn("approved by bob");
}
