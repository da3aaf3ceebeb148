//! Tokens that are limited to repositories: what they deploy, and that they do nothing else.

use reqwest::Method;
use serde_json::{Value, json};
use signet_common::deploy::{CommitId, Standing};
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;
use crate::support::fake_agent::{FakeAgent, exited};
use crate::tokens::token;
use crate::visitor::Visitor;

on_both_pairs!(a_token_for_repositories_is_no_shell, an_old_token_for_repositories_does_nothing_else);

const REPOSITORY: &str = "https://git.example.com/org/app";

fn scope(change: &Value) -> Value {
    with(
        json!({ "name": "ci", "role": "operator", "surfaces": ["jobs"], "groups": ["web"],
            "repositories": [REPOSITORY] }),
        change,
    )
}

fn job(change: &Value) -> Value {
    with(
        json!({ "git_repo": format!("{REPOSITORY}.git"), "git_branch": "0".repeat(40), "dest_path": "/srv/app",
            "targets": [{ "host": "web1" }] }),
        change,
    )
}

fn with(mut body: Value, change: &Value) -> Value {
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

async fn a_token_for_repositories_is_no_shell(pair: Pair) {
    let app = TestApp::start(pair).await;
    let _web = FakeAgent::enrol(&app, "web1", "web").await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    let plain = token(&app, &alice, scope(&json!({}))).await;
    let hooks = token(&app, &alice, scope(&json!({ "hooks": true }))).await;
    let below = token(&app, &alice, scope(&json!({ "paths": ["/srv/app", "/opt"] }))).await;
    let releases = |field: &str, value: Value| job(&json!({ "strategy": "releases", field: value }));
    let probe = |probe: Value| json!({ "probe": probe, "timeout": 1, "attempts": 1 });
    let mut with_hooks = Vec::new();
    for (field, body) in [
        ("build", releases("build", json!(["true"]))),
        ("activate", releases("activate", json!(["true"]))),
        ("health", releases("health", probe(json!({ "command": "true" })))),
        ("filters", job(&json!({ "filters": true }))),
        ("user", job(&json!({ "user": "www-data" }))),
    ] {
        let refused = plain.post(&app, "/api/v1/jobs", &body).await;
        assert!(refused.status == 403 && refused.text.contains(field), "{field}: {}", refused.text);
        let made = hooks.post(&app, "/api/v1/jobs", &body).await.expect(202);
        with_hooks.push(made["data"]["job_id"].as_str().unwrap().to_owned());
    }
    let http = releases("health", probe(json!({ "http": { "url": "http://127.0.0.1/" } })));
    plain.post(&app, "/api/v1/jobs", &http).await.expect(202);
    for (path, status) in
        [("/srv/app", 202), ("/srv/app/x", 202), ("/opt/x", 202), ("/srv/application", 403), ("/srv", 403)]
    {
        let answer = below.post(&app, "/api/v1/jobs", &job(&json!({ "dest_path": path }))).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    // Nor does it make such a job anew.
    let commit = json!({ "commit": "0".repeat(40) });
    let made = plain.post(&app, "/api/v1/jobs", &job(&json!({ "dest_path": "/var/x" }))).await.expect(202);
    let elsewhere = made["data"]["job_id"].as_str().unwrap();
    for (who, job, status) in
        [(&plain, with_hooks[0].as_str(), 403), (&hooks, &with_hooks[0], 409), (&below, elsewhere, 404)]
    {
        for (what, body) in [("retry", json!({})), ("rollback", commit.clone())] {
            let answer = who.post(&app, &format!("/api/v1/jobs/{job}/{what}"), &body).await;
            assert_eq!(answer.status, status, "{what}: {}", answer.text);
        }
    }
}

/// As tokens were stored that could be made without `surfaces`.
async fn an_old_token_for_repositories_does_nothing_else(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut web = FakeAgent::enrol(&app, "web1", "web").await;
    let root = Visitor::new(&app, "root", "admin").await;
    let old = token(
        &app,
        &root,
        json!({ "name": "old", "role": "admin",
        "surfaces": ["jobs"], "repositories": [REPOSITORY] }),
    )
    .await;
    app.change(r#"UPDATE api_tokens SET scope = REPLACE(scope, '"surfaces":["jobs"],', '')"#).await;
    let command = json!({ "target_type": "node", "target": "web1", "command": "true" });
    let server = json!({ "hostname": "a", "ip": "10.0.0.1", "group": "web" });
    let none = "/api/approvals/00000000-0000-7000-8000-000000000000";
    for (method, path, body) in [
        (Method::POST, "/api/commands".to_owned(), command),
        (Method::POST, format!("{none}/approve"), json!({})),
        (Method::POST, format!("{none}/refuse"), json!({})),
        (Method::PUT, "/api/dispatch".into(), json!({ "paused": true, "reason": "x" })),
        (Method::POST, "/api/servers".into(), server),
        (Method::POST, "/api/repositories".into(), json!({ "url": "https://h/x" })),
        (Method::GET, "/api/v1/jobs/host-keys".into(), json!({})),
        (Method::DELETE, "/api/v1/jobs/host-keys/192.0.2.1".into(), json!({})),
        (Method::DELETE, root.own(), json!({})),
        (Method::PUT, root.own(), json!({ "role": "viewer" })),
    ] {
        let answer = TestApp::send(old.request(&app, method.clone(), &path).json(&body)).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text);
    }
    old.get(&app, "/api/servers").await.expect(200);
    let hooks = job(&json!({ "strategy": "releases", "build": ["true"] }));
    assert_eq!(old.post(&app, "/api/v1/jobs", &hooks).await.status, 403);
    // Of deployed paths it sees those of its jobs.
    for path in ["/srv/app", "/srv/other"] {
        let repository = if path == "/srv/app" { REPOSITORY } else { "https://git.example.com/org/other" };
        let asked = job(&json!({ "dest_path": path, "git_repo": repository }));
        let made = app.post("/api/v1/jobs", &asked).await.expect(202);
        let deploy = web.next_deploy().await;
        web.accepted(&deploy.jti).await;
        web.result(&deploy.jti, exited(0, "", "")).await;
        let path = format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap());
        app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    }
    let at = |path: &str| {
        let commit: CommitId = "0".repeat(40).parse().unwrap();
        Standing {
            path: path.parse().unwrap(),
            deployed: commit.clone(),
            commit: Some(commit),
            edited: false,
        }
    };
    web.heartbeat_with(|beat| beat.deploys = ["/srv/app", "/srv/other", "/srv/old"].map(at).to_vec()).await;
    app.eventually("/api/deployments", |rows| rows.as_array().is_some_and(|rows| rows.len() == 3)).await;
    let rows = old.get(&app, "/api/deployments").await.expect(200);
    let paths: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/srv/app"]);
    old.post(&app, "/api/v1/jobs", &job(&json!({}))).await.expect(202);
}
