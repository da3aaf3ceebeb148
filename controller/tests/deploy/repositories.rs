//! What is known of repositories, and what a job may say beside it.

use serde_json::{Value, json};
use signet_testkit::ssh::SshKey;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;
use crate::support::fake_agent::FakeAgent;

on_both_pairs!(entries_come_and_go_and_show_no_secret, a_job_keeps_to_what_is_known);

const SIGNER: &str = "alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

fn fields(answer: &Value) -> Vec<String> {
    answer["error"]["details"].as_object().unwrap().keys().cloned().collect()
}

async fn entries_come_and_go_and_show_no_secret(pair: Pair) {
    let app = TestApp::start(pair).await;
    let dir = tempfile::tempdir().unwrap();
    let key = SshKey::ed25519(dir.path(), "deploy");
    let mut seen = String::new();
    let body = json!({ "url": "git@git.example.com:team/", "allowed_signers": SIGNER, "credential":
        { "kind": "deploy_key", "private_key": key.private(), "known_hosts": "git.example.com ssh-ed25519 AAAA" } });
    let made = app.post("/api/repositories", &body).await;
    seen += &made.text;
    let made = made.expect(201);
    let fingerprint = made["credential"]["fingerprint"].as_str().unwrap();
    assert!(fingerprint.starts_with("SHA256:"), "{made}");
    assert_eq!(made["credential"]["kind"], "deploy_key");
    // The same address in other words.
    for url in ["git@GIT.example.com:team//", "git@git.example.com:team/"] {
        let again = json!({ "url": url, "allowed_signers": SIGNER });
        app.post("/api/repositories", &again).await.expect(409);
    }
    let token = json!({ "kind": "https_token", "token": "planted-t0ken", "username": "ci" });
    let other = json!({ "url": "https://git.example.com/team/app.git", "credential": token });
    let other = app.post("/api/repositories", &other).await.expect(201);
    let listed = app.get("/api/repositories").await;
    seen += &listed.text;
    assert_eq!(listed.expect(200).as_array().unwrap().len(), 2);
    let path = format!("/api/repositories/{}", other["id"].as_str().unwrap());
    // What is not there stays; null takes it away.
    let changed = app.patch(&path, &json!({ "allowed_signers": SIGNER })).await.expect(200);
    assert_eq!(
        (&changed["credential"]["username"], &changed["allowed_signers"]),
        (&json!("ci"), &json!(SIGNER))
    );
    let changed = app.patch(&path, &json!({ "credential": null })).await.expect(200);
    assert_eq!((&changed["credential"], &changed["allowed_signers"]), (&json!(null), &json!(SIGNER)));
    // A secret goes to no other address.
    app.patch(&path, &json!({ "url": "https://evil.example.com/" })).await.expect(400);
    app.patch(&path, &json!({ "credential": { "kind": "deploy_key", "private_key": key.private() } }))
        .await
        .expect(400);
    app.delete(&path).await.expect(204);
    for answer in [app.get(&path).await, app.delete(&path).await, app.patch(&path, &json!({})).await] {
        answer.expect(404);
    }
    seen += &app.get("/api/audit").await.text;
    for action in ["repository.add", "repository.change", "repository.remove"] {
        assert!(seen.contains(action), "{action}");
    }
    let rows: Vec<(Option<Vec<u8>>,)> = app
        .db()
        .all(signet_controller::store::Statement::same("SELECT sealed FROM repositories").query())
        .await
        .unwrap();
    let sealed: Vec<u8> = rows.into_iter().filter_map(|(sealed,)| sealed).flatten().collect();
    assert!(!sealed.is_empty());
    seen += &String::from_utf8_lossy(&sealed);
    let line = key.private().lines().nth(2).unwrap()[..40].to_owned();
    assert!(!seen.contains("planted-t0ken") && !seen.contains(&line));
    let locked = SshKey::locked(dir.path(), "locked", "phrase").private();
    for (body, word) in [
        (json!({ "url": "https://h/x" }), "credential"),
        (json!({ "allowed_signers": SIGNER }), "url"),
        (json!({ "url": "https://u:planted@h/x", "allowed_signers": SIGNER }), "url"),
        (json!({ "url": "https://h/a/../b/", "allowed_signers": SIGNER }), "url"),
        (json!({ "url": "https://h/", "allowed_signers": "nobody" }), "allowed_signers"),
        (json!({ "url": "https://h/", "signers": SIGNER }), "body"),
        (
            json!({ "url": "git@h:x", "credential": { "kind": "deploy_key", "private_key": locked } }),
            "passphrase",
        ),
        (
            json!({ "url": "git@h:x", "credential": { "kind": "https_token", "token": "planted" } }),
            "credential.kind",
        ),
    ] {
        let answer = app.post("/api/repositories", &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(answer.text.contains(word) && !answer.text.contains("planted"), "{body}: {}", answer.text);
    }
}

async fn a_job_keeps_to_what_is_known(pair: Pair) {
    let app = TestApp::start(pair).await;
    let body = json!({ "url": "https://git.example.com/team/", "allowed_signers": SIGNER });
    app.post("/api/repositories", &body).await.expect(201);
    FakeAgent::enrol(&app, "h1", "web").await;
    let job = |url: &str, change: Value| {
        let mut body = json!({ "git_repo": url, "dest_path": "/srv/x", "targets": [{ "host": "h1" }] });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    let over_ssh =
        json!([{ "host": "192.0.2.1", "username": "u", "auth": { "type": "password", "password": "x" } }]);
    let known = "https://GIT.example.com:443/team/app.git";
    // Signatures can't be turned off, by another list or another way.
    let own = app.post("/api/v1/jobs", &job(known, json!({ "allowed_signers": SIGNER }))).await.expect(422);
    assert_eq!(fields(&own), ["allowed_signers"]);
    let ssh = app.post("/api/v1/jobs", &job(known, json!({ "targets": over_ssh }))).await.expect(422);
    assert_eq!(fields(&ssh), ["targets"]);
    let strays = job("https://git.example.com/x/../team/app", json!({}));
    assert_eq!(fields(&app.post("/api/v1/jobs", &strays).await.expect(422)), ["git_repo"]);
    app.post("/api/v1/jobs", &job(known, json!({}))).await.expect(202);
    // What is not known may bring its own.
    let token = json!({ "kind": "https_token", "token": "planted-t0ken" });
    let own = json!({ "allowed_signers": SIGNER, "credential": token, "submodules": true, "filters": true });
    let made = app.post("/api/v1/jobs", &job("https://h.example.com/x", own.clone())).await.expect(202);
    let shown = app.get(&format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap())).await;
    assert!(!shown.text.contains("planted-t0ken"));
    let shown = shown.expect(200)["data"].take();
    assert_eq!(
        (&shown["credential"], &shown["submodules"]),
        (&json!("https_token"), &json!(true)),
        "{shown}"
    );
    // Ansible understands none of it.
    let mut all = job("https://h.example.com/x", own);
    all["targets"] = over_ssh;
    let wrong = app.post("/api/v1/jobs", &all).await.expect(422);
    assert_eq!(fields(&wrong), ["allowed_signers", "credential", "filters", "submodules"]);
    let wrong = json!({ "credential": { "kind": "deploy_key", "private_key": "x" }, "allowed_signers": "",
        "submodules": 1, "filters": "yes" });
    let wrong = app.post("/api/v1/jobs", &job("https://h.example.com/x", wrong)).await.expect(422);
    let wanted = ["allowed_signers", "credential.kind", "credential.private_key", "filters", "submodules"];
    assert_eq!(fields(&wrong), wanted);
    let password = app.post("/api/v1/jobs", &job("https://u:planted@h/x", json!({}))).await;
    assert!(
        password.status == 422
            && password.text.contains("`credential`")
            && !password.text.contains("planted")
    );
}
