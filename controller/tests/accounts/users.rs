//! What an account may do and what ends it.

use reqwest::Method;
use serde_json::json;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;
use crate::support::fake_agent::FakeAgent;
use crate::visitor::{PASSWORD, Visitor, log_in};

on_both_pairs!(
    nobody_registers_as_more_than_a_user,
    a_disabled_account_ends_at_once,
    a_changed_password_ends_the_other_log_ins,
    the_last_admin_stays,
    two_admins_cannot_end_one_another,
    others_are_not_to_be_seen,
    a_role_is_not_ones_own_to_change,
    an_operator_may_be_limited_to_groups,
    pages_and_searches,
);

async fn nobody_registers_as_more_than_a_user(pair: Pair) {
    let app = TestApp::start(pair).await;
    let body = json!({ "username": "eve", "email": "eve@example.com", "password": PASSWORD, "role": "admin",
        "is_active": true, "id": "1", "host_groups": [] });
    let request = app.anonymous(Method::POST, "/api/v1/auth/register").json(&body);
    assert_eq!(TestApp::send(request).await.expect(201)["data"]["role"], "user");
    let eve = log_in(&app, "eve", PASSWORD).await.expect(200);
    let token = eve["data"]["token"].as_str().unwrap();
    let servers = TestApp::send(app.anonymous(Method::GET, "/api/servers").bearer_auth(token)).await;
    assert_eq!(servers.status, 403);
    let closed = TestApp::start_with(pair.parts().await, |s| s.registration = Some(false)).await;
    assert_eq!(closed.post("/api/v1/auth/register", &body).await.status, 403);
}

async fn a_disabled_account_ends_at_once(pair: Pair) {
    let app = TestApp::start(pair).await;
    let alice = Visitor::new(&app, "alice", "viewer").await;
    let made = alice.post(&app, "/api/tokens", &json!({ "name": "ci" })).await.expect(201);
    let api = Visitor { token: made["token"].as_str().unwrap().to_owned(), ..alice.again(&app).await };
    alice.get(&app, "/api/servers").await.expect(200);
    api.get(&app, "/api/servers").await.expect(200);
    app.put(&alice.own(), &json!({ "is_active": false })).await.expect(200);
    assert_eq!(alice.get(&app, "/api/servers").await.status, 401);
    assert_eq!(api.get(&app, "/api/servers").await.status, 401);
    assert_eq!(log_in(&app, "alice", PASSWORD).await.status, 401);
    app.put(&alice.own(), &json!({ "is_active": true })).await.expect(200);
    assert_eq!(alice.get(&app, "/api/servers").await.status, 401, "its log-ins had ended");
    log_in(&app, "alice", PASSWORD).await.expect(200);
    api.get(&app, "/api/servers").await.expect(200);
    app.delete(&alice.own()).await.expect(200);
    assert_eq!(api.get(&app, "/api/servers").await.status, 401);
}

async fn a_changed_password_ends_the_other_log_ins(pair: Pair) {
    let app = TestApp::start(pair).await;
    let here = Visitor::new(&app, "alice", "viewer").await;
    let there = here.again(&app).await;
    let change = |old: &str| json!({ "old_password": old, "new_password": "battery staple" });
    let path = format!("{}/password", here.own());
    assert_eq!(here.put(&app, &path, &change("wrong horse")).await.status, 400);
    there.get(&app, "/api/servers").await.expect(200);
    here.put(&app, &path, &change(PASSWORD)).await.expect(200);
    here.get(&app, "/api/servers").await.expect(200);
    assert_eq!(there.get(&app, "/api/servers").await.status, 401);
    assert_eq!(log_in(&app, "alice", PASSWORD).await.status, 401);
    // An admin needs no old one, and ends every log-in.
    app.put(&path, &json!({ "new_password": PASSWORD })).await.expect(200);
    assert_eq!(here.get(&app, "/api/servers").await.status, 401);
    log_in(&app, "alice", PASSWORD).await.expect(200);
}

async fn the_last_admin_stays(pair: Pair) {
    let app = TestApp::start(pair).await;
    let list = app.get("/api/v1/users?role=admin").await.expect(200);
    let path = format!("/api/v1/users/{}", list["data"]["users"][0]["id"].as_str().unwrap());
    assert_eq!(app.put(&path, &json!({ "role": "user" })).await.status, 409);
    assert_eq!(app.put(&path, &json!({ "is_active": false })).await.status, 409);
    assert_eq!(app.delete(&path).await.status, 409);
    let bob = Visitor::new(&app, "bob", "admin").await;
    app.put(&bob.own(), &json!({ "is_active": false })).await.expect(200);
    assert_eq!(app.delete(&path).await.status, 409, "a disabled one does not count");
    app.put(&bob.own(), &json!({ "is_active": true })).await.expect(200);
    app.delete(&path).await.expect(200);
}

async fn two_admins_cannot_end_one_another(pair: Pair) {
    let app = TestApp::start(pair).await;
    let first = app.get("/api/v1/users").await.expect(200)["data"]["users"][0]["id"].clone();
    let bob = Visitor::new(&app, "bob", "admin").await;
    let (body, other) = (json!({ "role": "user" }), format!("/api/v1/users/{}", first.as_str().unwrap()));
    let own = bob.own();
    let (a, b) = tokio::join!(app.put(&own, &body), app.put(&other, &body));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

async fn others_are_not_to_be_seen(pair: Pair) {
    let app = TestApp::start(pair).await;
    let (alice, bob) =
        (Visitor::new(&app, "alice", "operator").await, Visitor::new(&app, "bob", "user").await);
    alice.get(&app, &alice.own()).await.expect(200);
    let forbidden = alice.get(&app, &bob.own()).await;
    let unknown = alice.get(&app, "/api/v1/users/550e8400-e29b-41d4-a716-446655440000").await;
    assert_eq!((forbidden.status.as_u16(), unknown.status.as_u16()), (403, 403));
    assert_eq!(forbidden.text, unknown.text, "nor whether there are any");
    for path in ["/api/v1/users/..%2f..%2fservers", "/api/v1/users/%00", "/api/v1/users/1%20OR%201=1"] {
        assert_eq!(app.get(path).await.status, 400, "{path}");
    }
    let change = json!({ "new_password": "battery staple", "old_password": PASSWORD });
    assert_eq!(alice.put(&app, &format!("{}/password", bob.own()), &change).await.status, 403);
}

async fn a_role_is_not_ones_own_to_change(pair: Pair) {
    let app = TestApp::start(pair).await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    for change in [json!({ "role": "admin" }), json!({ "role": "user" }), json!({ "host_groups": ["web"] })] {
        assert_eq!(alice.put(&app, &alice.own(), &change).await.status, 403, "{change}");
    }
    let same = json!({ "email": "new@example.com", "role": "operator" });
    assert_eq!(alice.put(&app, &alice.own(), &same).await.expect(200)["data"]["email"], "new@example.com");
}

async fn an_operator_may_be_limited_to_groups(pair: Pair) {
    let app = TestApp::start(pair).await;
    let _web = FakeAgent::enrol(&app, "web1", "web").await;
    let _db = FakeAgent::enrol(&app, "db1", "db").await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    let command =
        |kind: &str, target: &str| json!({ "target_type": kind, "target": target, "command": "true" });
    let everywhere = alice.post(&app, "/api/commands", &command("all", "")).await.expect(201);
    app.put(&alice.own(), &json!({ "host_groups": ["web"] })).await.expect(200);
    let own = alice.post(&app, "/api/commands", &command("node", "web1")).await.expect(201);
    alice.post(&app, "/api/commands", &command("group", "web")).await.expect(201);
    for (kind, target) in [("all", ""), ("node", "db1"), ("group", "db")] {
        let answer = alice.post(&app, "/api/commands", &command(kind, target)).await;
        assert_eq!(answer.status, 403, "{kind} {target}");
    }
    assert_eq!(app.get("/api/tasks").await.expect(200).as_array().unwrap().len(), 3, "nothing is half done");
    let cancel =
        |task: &serde_json::Value| format!("/api/tasks/{}/cancel", task["task_id"].as_str().unwrap());
    assert_eq!(alice.post(&app, &cancel(&everywhere), &json!({})).await.status, 403);
    alice.post(&app, &cancel(&own), &json!({})).await.expect(200);
    assert_eq!(
        alice.put(&app, "/api/dispatch", &json!({ "paused": true, "reason": null })).await.status,
        403
    );
    app.put(&alice.own(), &json!({ "host_groups": [] })).await.expect(200);
    alice.post(&app, &cancel(&everywhere), &json!({})).await.expect(200);
}

async fn pages_and_searches(pair: Pair) {
    let app = TestApp::start(pair).await;
    for name in ["ann", "anna", "bob"] {
        Visitor::new(&app, name, "user").await;
    }
    let page = app.get("/api/users/?page_size=2&search=").await.expect(200);
    assert_eq!((page["count"].as_u64(), &page["previous"]), (Some(4), &json!(null)));
    assert_eq!(page["next"], format!("{}/api/users/?page=2&page_size=2&search=", app.base));
    let names = |page: &serde_json::Value| {
        let all = page["results"].as_array().unwrap();
        all.iter().map(|user| user["username"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&page), ["bob", "anna"], "newest first");
    let next = page["next"].as_str().unwrap().strip_prefix(&app.base).unwrap().to_owned();
    let last = app.get(&next).await.expect(200);
    assert_eq!((names(&last), &last["next"]), (vec!["ann".to_owned(), "admin".to_owned()], &json!(null)));
    assert_eq!(app.get("/api/users/?page=3&page_size=2").await.status, 404);
    assert_eq!(app.get("/api/users/?page=x").await.status, 404);
    assert_eq!(names(&app.get("/api/users/?search=ANN").await.expect(200)), ["anna", "ann"]);
    assert_eq!(names(&app.get("/api/users/?search=an_").await.expect(200)), Vec::<String>::new());
}
