//! Tokens for programs.

use reqwest::Method;
use serde_json::{Value, json};
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::support::fake_agent::FakeAgent;
use crate::support::{PATIENCE, TestApp};
use crate::visitor::Visitor;

on_both_pairs!(a_token_lends_what_it_names, a_token_makes_no_token, a_token_is_kept_as_a_hash);

/// A token of somebody's.
pub(crate) async fn token(app: &TestApp, whose: &Visitor, body: Value) -> Visitor {
    let made = whose.post(app, "/api/tokens", &body).await.expect(201);
    let token = made["token"].as_str().unwrap().to_owned();
    Visitor { token, name: whose.name.clone(), id: made["id"].as_str().unwrap().to_owned() }
}

async fn a_token_lends_what_it_names(pair: Pair) {
    let app = TestApp::start(pair).await;
    let _web = FakeAgent::enrol(&app, "web1", "web").await;
    let _db = FakeAgent::enrol(&app, "db1", "db").await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    let command = |target: &str| json!({ "target_type": "node", "target": target, "command": "true" });
    let reads = token(&app, &alice, json!({ "name": "reads" })).await;
    reads.get(&app, "/api/servers").await.expect(200);
    assert_eq!(reads.post(&app, "/api/commands", &command("web1")).await.status, 403);

    let web = token(&app, &alice, json!({ "name": "web", "role": "operator", "groups": ["web"] })).await;
    web.post(&app, "/api/commands", &command("web1")).await.expect(201);
    assert_eq!(web.post(&app, "/api/commands", &command("db1")).await.status, 403);
    let jobs = token(&app, &alice, json!({ "name": "jobs", "surfaces": ["jobs"] })).await;
    assert_eq!(jobs.get(&app, "/api/servers").await.status, 403);
    let far = token(&app, &alice, json!({ "name": "far", "networks": ["192.0.2.0/24"] })).await;
    assert_eq!(far.get(&app, "/api/servers").await.status, 403);
    let spoofed = far.request(&app, Method::GET, "/api/servers").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(TestApp::send(spoofed).await.status, 403, "no proxy is trusted");
    let near = token(&app, &alice, json!({ "name": "near", "networks": ["127.0.0.1"] })).await;
    near.get(&app, "/api/servers").await.expect(200);

    let later = json!({ "name": "later", "expires_at": "2999-01-01T00:00:00Z" });
    let later = token(&app, &alice, later).await;
    later.get(&app, "/api/servers").await.expect(200);
    app.change("UPDATE api_tokens SET expires_at = 1 WHERE name = 'later'").await;
    assert_eq!(later.get(&app, "/api/servers").await.status, 401);
    // Its owner may less from now on, and so may it.
    app.put(&alice.own(), &json!({ "role": "viewer" })).await.expect(200);
    assert_eq!(web.post(&app, "/api/commands", &command("web1")).await.status, 403);
    let gone = TestApp::send(alice.request(&app, Method::DELETE, &format!("/api/tokens/{}", reads.id))).await;
    assert_eq!(gone.status, 204);
    assert_eq!(reads.get(&app, "/api/servers").await.status, 401);
}

async fn a_token_makes_no_token(pair: Pair) {
    let app = TestApp::start(pair).await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    let bob = Visitor::new(&app, "bob", "operator").await;
    let ci = token(&app, &alice, json!({ "name": "ci", "role": "operator" })).await;
    assert_eq!(ci.post(&app, "/api/tokens", &json!({ "name": "more" })).await.status, 403);
    let change = json!({ "old_password": crate::visitor::PASSWORD, "new_password": "battery staple" });
    assert_eq!(ci.put(&app, &format!("{}/password", alice.own()), &change).await.status, 403);
    for (field, body) in [
        ("role", json!({ "name": "x", "role": "admin" })),
        ("role", json!({ "name": "x", "role": "root" })),
        ("name", json!({ "name": "" })),
        ("surfaces", json!({ "name": "x", "surfaces": ["moon"] })),
        ("groups", json!({ "name": "x", "groups": [] })),
        ("networks", json!({ "name": "x", "networks": ["10.0.0.0/99"] })),
        ("surfaces", json!({ "name": "x", "repositories": ["https://h/x"] })),
        ("surfaces", json!({ "name": "x", "repositories": ["https://h/x"], "surfaces": ["jobs", "fleet"] })),
        ("hooks", json!({ "name": "x", "hooks": true })),
        ("paths", json!({ "name": "x", "paths": ["/srv"] })),
        (
            "paths",
            json!({ "name": "x", "repositories": ["https://h/x"], "surfaces": ["jobs"], "paths": ["/srv/"] }),
        ),
        ("expires_at", json!({ "name": "x", "expires_at": "2001-01-01T00:00:00Z" })),
        // What is misspelt would make a token without a limit.
        ("not known: surface;", json!({ "name": "x", "surface": ["jobs"] })),
        ("not known: group;", json!({ "name": "x", "group": ["web"] })),
        ("not known: expires;", json!({ "name": "x", "expires": "2999-01-01T00:00:00Z" })),
        ("not known: scope;", json!({ "name": "x", "scope": { "surfaces": ["jobs"] } })),
        ("only these fields are known: name, role, surfaces", json!({ "name": "x", "x": 1 })),
    ] {
        let answer = alice.post(&app, "/api/tokens", &body).await.expect(400);
        assert!(answer["detail"].as_str().unwrap().contains(field), "{answer}");
    }
    let asked = json!({ "name": "x", "role": "operator", "surfaces": ["jobs"], "groups": ["web"],
        "expires_at": "2999-01-01T00:00:00Z" });
    let mut made = alice.post(&app, "/api/tokens", &asked).await.expect(201);
    made.as_object_mut().unwrap().remove("token").unwrap();
    let listed = alice.get(&app, "/api/tokens").await.expect(200);
    let seen = listed.as_array().unwrap().iter().find(|one| one["id"] == made["id"]).unwrap();
    for (name, value) in made.as_object().unwrap() {
        assert_eq!(*value, seen[name], "{name} is as in the list");
    }
    assert_eq!((&made["role"], &made["scope"]["groups"]), (&json!("operator"), &json!(["web"])));
    assert_eq!(made["expires_at"], "2999-01-01T00:00:00Z");
    let long = json!({ "name": "x", "surfaces": ["jobs"], "repositories": ["r".repeat(70_000)] });
    assert_eq!(alice.post(&app, "/api/tokens", &long).await.status, 400);
    let own = TestApp::send(ci.request(&app, Method::DELETE, &format!("/api/tokens/{}", ci.id))).await;
    assert_eq!(own.status, 403);
    let mail = json!({ "email": "other@example.com" });
    let profile = TestApp::send(ci.request(&app, Method::PATCH, "/api/users/me").json(&mail)).await;
    assert_eq!(profile.status, 403);
    let root = Visitor::new(&app, "root", "admin").await;
    let limited = token(&app, &root, json!({ "name": "limited", "role": "admin", "groups": ["web"] })).await;
    let server = json!({ "hostname": "a", "ip": "10.0.0.1", "group": "web" });
    assert_eq!(limited.post(&app, "/api/servers", &server).await.status, 403);
    let whole = token(&app, &root, json!({ "name": "whole", "role": "admin" })).await;
    whole.post(&app, "/api/servers", &server).await.expect(201);
    assert_eq!(whole.put(&app, &bob.own(), &json!({ "role": "admin" })).await.status, 403);
    let groups = json!({ "host_groups": ["g".repeat(70_000)] });
    assert_eq!(root.put(&app, &bob.own(), &groups).await.status, 400);
    let others = TestApp::send(bob.request(&app, Method::DELETE, &format!("/api/tokens/{}", ci.id))).await;
    assert_eq!(others.status, 404);
    assert_eq!(bob.get(&app, "/api/tokens").await.expect(200), json!([]));
}

async fn a_token_is_kept_as_a_hash(pair: Pair) {
    let app = TestApp::start(pair).await;
    let alice = Visitor::new(&app, "alice", "viewer").await;
    let ci = token(&app, &alice, json!({ "name": "ci" })).await;
    alice.post(&app, "/api/tokens", &json!({ "name": "second" })).await.expect(201);
    let page = alice.get(&app, "/api/tokens?limit=1").await;
    assert_eq!(page.json()[0]["name"], "second", "newest first");
    let link = page.headers["link"].to_str().unwrap();
    let page = alice.get(&app, &link[1..link.find('>').unwrap()]).await;
    assert!(page.json()[0]["name"] != "second" && !page.headers.contains_key("link"));
    app.delete(&format!(
        "/api/tokens/{}",
        alice.get(&app, "/api/tokens?limit=1").await.json()[0]["id"].as_str().unwrap()
    ))
    .await;
    let shown = alice.get(&app, "/api/tokens").await;
    assert!(!shown.text.contains(&ci.token), "shown once");
    assert_eq!(shown.json()[0]["last_used_at"], json!(null));
    ci.get(&app, "/api/servers").await.expect(200);
    eventually(PATIENCE, "the last use", async || {
        let shown = alice.get(&app, "/api/tokens").await.json();
        Some(shown).filter(|tokens| tokens[0]["last_used_at"].is_string())
    })
    .await;
    let hash = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, ci.token.as_bytes()));
    let found: Option<(String,)> = {
        let statement = signet_controller::store::Statement::same("SELECT hash FROM api_tokens");
        app.db().first(statement.query()).await.unwrap()
    };
    assert_eq!(found.unwrap().0, hash);
}
