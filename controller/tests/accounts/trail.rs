//! The audit trail: that every change and refusal is in it, that no secret is, and that whoever changes it is found out.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use signet_common::messages::Leave;
use signet_common::time::Micros;
use signet_common::trail::{Broken, Check, Summary, heads};
use signet_common::{Envelope, Jti, PayloadType};
use signet_controller::http::permissions::ROUTES;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::fake_agent::FakeAgent;
use crate::support::{JOIN_TOKEN, TestApp};
use crate::visitor::{PASSWORD, Visitor, log_in};

on_both_pairs!(
    every_change_leaves_an_entry_and_no_secret,
    refusals_are_counted,
    failed_log_ins_name_the_account_alone,
    entries_are_found_by_what_they_say,
    the_trail_is_whole_and_every_change_of_it_shows,
    a_rotated_key_goes_on_with_the_trail,
    what_is_too_old_goes_and_the_trail_says_so,
    two_controllers_write_one_trail,
);

/// Changing routes that leave no entry, and why.
const SILENT: [(&str, &str); 1] = [(
    "POST /api/agents/hello",
    "an enrolment and a claim are noted; thousands of known hosts say hello every hour",
)];

/// Waits until everything is sealed, and gives the export.
async fn export(app: &TestApp) -> String {
    app.eventually("/api/audit/head", |head| head["unsealed"] == 0 && head["block"] != 0).await;
    app.get("/api/audit/export").await.text
}

async fn checked(app: &TestApp, kept: BTreeMap<u64, String>) -> Result<Summary, Broken> {
    let anchor = app.get("/api/keys").await.expect(200)["fingerprint"].as_str().unwrap().parse().unwrap();
    let mut check = Check::new(anchor, kept);
    app.get("/api/audit/export").await.text.lines().try_for_each(|line| check.line(line))?;
    check.finish()
}

async fn entries(app: &TestApp, query: &str) -> Vec<Value> {
    app.get(&format!("/api/audit?{query}")).await.expect(200).as_array().unwrap().clone()
}

/// Sends each request, and says which id it got.
struct Script<'a> {
    app: &'a TestApp,
    done: Vec<(String, String)>,
}

impl Script<'_> {
    async fn send(&mut self, route: &str, request: RequestBuilder) -> Value {
        let answer = TestApp::send(request).await;
        assert!(answer.status.is_success(), "{route}: {} {}", answer.status, answer.text);
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        self.done.push((route.to_owned(), id));
        serde_json::from_str(&answer.text).unwrap_or_default()
    }

    /// As the admin, or as this visitor.
    async fn ask(&mut self, route: &str, path: &str, by: Option<&Visitor>, body: Value) -> Value {
        let method: Method = route.split_once(' ').unwrap().0.parse().unwrap();
        let request = match by {
            Some(by) => by.request(self.app, method, path),
            None => self.app.request(method, path),
        };
        self.send(route, request.json(&body)).await
    }

    async fn hosts(&mut self) {
        let new = json!({ "hostname": "h0", "ip": "192.0.2.1" });
        self.ask("POST /api/servers", "/api/servers", None, new).await;
        self.ask("PATCH /api/servers/{hostname}", "/api/servers/h0", None, json!({ "group": "web" })).await;
        let key = json!({ "public_key_pem": self.app.agent_key().public().to_pem() });
        self.ask("PUT /api/client-keys/{hostname}", "/api/client-keys/h0", None, key).await;
        self.ask("DELETE /api/servers/{hostname}", "/api/servers/h0", None, json!({})).await;
        let made = self.ask("POST /api/join-tokens", "/api/join-tokens", None, json!({})).await;
        let path = format!("/api/join-tokens/{}", made["id"].as_str().unwrap());
        self.ask("DELETE /api/join-tokens/{id}", &path, None, json!({})).await;

        FakeAgent::enrol(self.app, "h1", "web").await;
        let mut claims = FakeAgent::new(self.app, "h1", "web").await;
        claims.join = JOIN_TOKEN.parse().unwrap();
        claims.hello(self.app).await;
        let path = format!("/api/agents/{}", claims.id);
        self.ask("POST /api/agents/{agent_id}/accept", &format!("{path}/accept"), None, json!({})).await;
        self.ask("POST /api/agents/{agent_id}/revoke", &format!("{path}/revoke"), None, json!({})).await;
        let leaves = FakeAgent::enrol(self.app, "h2", "web").await;
        let nonce = self.app.get("/api/agents/nonce").await.expect(200);
        let leave = Leave {
            iss: leaves.id.to_string(),
            aud: vec!["controller".into()],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            public_key: leaves.key.public().to_pem(),
            controller_nonce: nonce["nonce"].as_str().unwrap().to_owned(),
        };
        let signed = Envelope::sign(&leaves.key, PayloadType::Leave, &leave).unwrap().to_dsse();
        let request = self.app.anonymous(Method::POST, "/api/agents/leave").json(&signed);
        self.send("POST /api/agents/leave", request).await;
        self.ask("POST /api/keys/rotate", "/api/keys/rotate", None, json!({})).await;
        self.ask("POST /api/keys/revoke", "/api/keys/revoke", None, json!({})).await;
    }

    async fn commands(&mut self) {
        FakeAgent::enrol(self.app, "h3", "web").await;
        let body = json!({ "target_type": "node", "target": "h3", "command": "uptime",
            "env": { "TOKEN": "planted-in-env" }, "stdin": "planted-in-stdin" });
        let task = self.ask("POST /api/commands", "/api/commands", None, body).await;
        let path = format!("/api/tasks/{}/cancel", task["task_id"].as_str().unwrap());
        self.ask("POST /api/tasks/{task_id}/cancel", &path, None, json!({})).await;
        self.approvals().await;
        self.ask("PUT /api/dispatch", "/api/dispatch", None, json!({ "paused": true })).await;
        self.ask("PUT /api/dispatch", "/api/dispatch", None, json!({ "paused": false })).await;
    }

    async fn repositories(&mut self) {
        let token = |secret: &str| json!({ "credential": { "kind": "https_token", "token": secret } });
        let mut body = token("planted-in-token");
        body["url"] = "https://git.example.com/team/".into();
        let made = self.ask("POST /api/repositories", "/api/repositories", None, body).await;
        let path = format!("/api/repositories/{}", made["id"].as_str().unwrap());
        self.ask("PATCH /api/repositories/{id}", &path, None, token("planted-in-change")).await;
        self.ask("DELETE /api/repositories/{id}", &path, None, json!({})).await;
    }

    async fn jobs(&mut self) {
        let auth = json!({ "type": "password", "password": "planted-in-auth" });
        let body = json!({ "git_repo": "https://h/x.git", "dest_path": "/srv/x",
            "targets": [{ "host": "192.0.2.1", "username": "u", "auth": auth }] });
        let job = self.ask("POST /api/v1/jobs", "/api/v1/jobs", None, body).await;
        let path = format!("/api/v1/jobs/{}", job["data"]["job_id"].as_str().unwrap());
        self.ask("POST /api/v1/jobs/{job_id}/cancel", &format!("{path}/cancel"), None, json!({})).await;
        self.app.eventually(&path, |job| job["data"]["status"] == "CANCELLED").await;
        self.ask("POST /api/v1/jobs/{job_id}/retry", &format!("{path}/retry"), None, json!({})).await;
        // As if it had been deployed before.
        self.app
            .change(
                "UPDATE job_targets SET status = 'SUCCESS', commit_id = \
            '1481d4b8ad5ce0ff1481d4b8ad5ce0ff1481d4b8' WHERE job_id = 1",
            )
            .await;
        let back = json!({ "commit": "1481d4b8ad5ce0ff1481d4b8ad5ce0ff1481d4b8" });
        self.ask("POST /api/v1/jobs/{job_id}/rollback", &format!("{path}/rollback"), None, back).await;
        let pinned =
            "INSERT INTO job_host_keys (host, port, host_key, job_id, pinned_at) VALUES ('h', 22, 'k', 1, 1)";
        self.app.change(pinned).await;
        let path = "/api/v1/jobs/host-keys/h";
        self.ask("DELETE /api/v1/jobs/host-keys/{host}", path, None, json!({})).await;
    }

    async fn approvals(&mut self) {
        let rule = json!({ "target": { "group": "web" }, "approvals": 1 });
        let rule = self.ask("POST /api/approval-rules", "/api/approval-rules", None, rule).await;
        let bob = Visitor::new(self.app, "bob", "operator").await;
        for (verb, secret) in [("approve", "planted-in-env"), ("refuse", "planted-in-stdin")] {
            let body = json!({ "target_type": "node", "target": "h3", "command": "uptime", "env": { "TOKEN": secret } });
            let task = self.ask("POST /api/commands", "/api/commands", None, body).await;
            let path = format!("/api/approvals/{}/{verb}", task["task_id"].as_str().unwrap());
            let word = json!({ "digest": task["approval"]["digest"], "reason": "no" });
            self.ask(&format!("POST /api/approvals/{{task_id}}/{verb}"), &path, Some(&bob), word).await;
        }
        let key = json!({ "public_key": "ssh-ed25519 \
            AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com" });
        let key = self.ask("POST /api/approver-keys", "/api/approver-keys", Some(&bob), key).await;
        let path = format!("/api/approver-keys/{}", key["id"].as_str().unwrap());
        self.ask("DELETE /api/approver-keys/{id}", &path, Some(&bob), json!({})).await;
        let path = format!("/api/approval-rules/{}", rule["id"].as_str().unwrap());
        self.ask("DELETE /api/approval-rules/{id}", &path, None, json!({})).await;
    }

    async fn accounts(&mut self) {
        let login = json!({ "username": "alice", "password": PASSWORD });
        let register = json!({ "username": "alice", "email": "a@example.com", "password": PASSWORD });
        let anonymous = |path: &str, body: &Value| self.app.anonymous(Method::POST, path).json(body);
        let request = anonymous("/api/v1/auth/register", &register);
        let made = self.send("POST /api/v1/auth/register", request).await;
        let own = format!("/api/v1/users/{}", made["data"]["id"].as_str().unwrap());
        let pair = self.send("POST /api/auth/login", anonymous("/api/auth/login", &login)).await;
        let request = anonymous("/api/auth/refresh", &json!({ "refresh": pair["refresh"] }));
        self.send("POST /api/auth/refresh", request).await;
        let single = self.send("POST /api/v1/auth/login", anonymous("/api/v1/auth/login", &login)).await;
        let request = anonymous("/api/v1/auth/refresh", &json!({ "token": single["data"]["token"] }));
        let single = self.send("POST /api/v1/auth/refresh", request).await;
        let token = |answer: &Value| answer["data"]["token"].as_str().unwrap().to_owned();
        let alice = Visitor { name: "alice".into(), id: String::new(), token: token(&single) };
        let me = Some(&alice);
        self.ask("PATCH /api/users/me", "/api/users/me", me, json!({ "first_name": "Alice" })).await;
        let change = json!({ "old_password": PASSWORD, "new_password": "battery staple" });
        self.ask("POST /api/users/me/password", "/api/users/me/password", me, change).await;
        self.ask("PUT /api/v1/users/{id}", &own, None, json!({ "role": "operator" })).await;
        let back = json!({ "new_password": PASSWORD });
        self.ask("PUT /api/v1/users/{id}/password", &format!("{own}/password"), None, back).await;
        let alice = alice.again(self.app).await;
        let made = self.ask("POST /api/tokens", "/api/tokens", Some(&alice), json!({ "name": "ci" })).await;
        let path = format!("/api/tokens/{}", made["id"].as_str().unwrap());
        self.ask("DELETE /api/tokens/{id}", &path, Some(&alice), json!({})).await;
        self.ask("POST /api/tickets", "/api/tickets", Some(&alice), json!({})).await;
        self.ask("POST /api/auth/logout", "/api/auth/logout", Some(&alice), json!({})).await;
        let alice = alice.again(self.app).await;
        self.ask("POST /api/v1/auth/logout", "/api/v1/auth/logout", Some(&alice), json!({})).await;
        let request = anonymous("/api/session", &login).header("sec-fetch-site", "same-origin");
        self.send("POST /api/session", request).await;
        let alice = alice.again(self.app).await;
        self.ask("DELETE /api/session", "/api/session", Some(&alice), json!({})).await;
        self.ask("DELETE /api/v1/users/{id}", &own, None, json!({})).await;
    }
}

async fn every_change_leaves_an_entry_and_no_secret(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("ansible-playbook");
    // A deployment that is still under way when it is cancelled.
    std::fs::write(&program, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let app =
        TestApp::start_with(pair.parts().await, |s| s.deploying.ansible_playbook = program.clone()).await;
    let mut script = Script { app: &app, done: Vec::new() };
    script.commands().await;
    script.repositories().await;
    script.jobs().await;
    script.hosts().await;
    script.accounts().await;
    let visited: BTreeSet<&str> = script.done.iter().map(|(route, _)| route.as_str()).collect();
    let missing: Vec<String> = ROUTES
        .iter()
        .filter(|(method, _, _)| *method != Method::GET)
        .map(|(method, path, _)| format!("{method} {path}"))
        .filter(|route| !visited.contains(route.as_str()) && SILENT.iter().all(|(silent, _)| silent != route))
        .collect();
    assert!(missing.is_empty(), "changing routes that this test does not visit: {missing:?}");

    let export = export(&app).await;
    let found: BTreeSet<String> = entries(&app, "limit=1000")
        .await
        .iter()
        .filter(|entry| entry["result"] == "success")
        .filter_map(|entry| entry["request"].as_str().map(str::to_owned))
        .collect();
    let unseen: Vec<_> = script.done.iter().filter(|(_, id)| !found.contains(id)).collect();
    assert!(unseen.is_empty(), "no entry: {unseen:?}");
    assert!(export.contains("uptime"), "a command's text is there");
    for secret in [
        PASSWORD,
        "battery staple",
        "planted-in-env",
        "planted-in-stdin",
        "planted-in-auth",
        "planted-in-token",
        "planted-in-change",
        "signet_",
        "eyJ",
    ] {
        assert!(!export.lines().any(|line| line.contains("entry") && line.contains(secret)), "{secret}");
    }
}

async fn refusals_are_counted(pair: Pair) {
    let app = TestApp::start(pair).await;
    let beside = app.beside().await;
    let eve = Visitor::new(&app, "eve", "viewer").await;
    let command = json!({ "target_type": "all", "command": "id" });
    for _ in 0..3 {
        assert_eq!(eve.post(&app, "/api/commands", &command).await.status, 403);
    }
    assert_eq!(TestApp::send(app.anonymous(Method::GET, "/api/servers")).await.status, 401);
    app.post("/api/commands", &json!({ "target_type": "moon", "command": "id" })).await.expect(400);
    // What nobody was refused.
    assert_eq!(app.get("/api/nothing").await.status, 404);
    assert_eq!(app.get("/api/servers/nobody").await.status, 404);
    // Who stops writes down what was counted until then.
    app.running.stop().await.unwrap();
    let refused = entries(&beside, "action=request.refused").await;
    let of = |who: &str, object: &str| {
        let fits = |e: &&Value| e["who"] == who && e["object"] == object;
        refused.iter().filter(fits).cloned().collect::<Vec<_>>()
    };
    let eves = of("eve", "POST /api/commands");
    assert!(eves.iter().all(|e| e["result"] == "refused" && e["status"] == 403 && e["from"] == "127.0.0.1"));
    assert_eq!(eves.iter().map(|e| e["count"].as_u64().unwrap()).sum::<u64>(), 3, "{refused:?}");
    assert_eq!(of("nobody", "GET /api/servers")[0]["status"], 401);
    assert_eq!(of("admin", "POST /api/commands")[0]["result"], "failed");
    assert!(!refused.iter().any(|e| e["object"].as_str().unwrap().contains("nothing")));
}

async fn failed_log_ins_name_the_account_alone(pair: Pair) {
    let app = TestApp::start(pair).await;
    Visitor::new(&app, "alice", "viewer").await;
    assert_eq!(log_in(&app, "alice", "wrong").await.status, 401);
    assert_eq!(log_in(&app, "my-secret-password", "alice").await.status, 401);
    let found = app
        .eventually("/api/audit?action=session.begin&result=refused", |all| {
            all.as_array().is_some_and(|a| !a.is_empty())
        })
        .await;
    assert_eq!(found[0]["object"], "alice");
    assert!(!export(&app).await.contains("my-secret-password"));
}

async fn entries_are_found_by_what_they_say(pair: Pair) {
    let app = TestApp::start(pair).await;
    for host in ["h1", "h2", "h3"] {
        app.post("/api/servers", &json!({ "hostname": host, "ip": "192.0.2.1" })).await.expect(201);
    }
    app.request(Method::PATCH, "/api/servers/h2").json(&json!({ "group": "db" })).send().await.unwrap();
    let objects =
        |all: Vec<Value>| all.iter().map(|e| e["object"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(objects(entries(&app, "action=server.add").await), ["h3", "h2", "h1"]);
    let changed = entries(&app, "object=h2&action=server.change&who=admin&result=success").await;
    assert_eq!((&changed[0]["old"]["group"], &changed[0]["new"]["group"]), (&json!("default"), &json!("db")));
    assert_eq!(changed[0]["via"], "admin token");
    assert!(entries(&app, "who=nobody-at-all").await.is_empty());
    assert!(entries(&app, "since=2100-01-01T00:00:00Z").await.is_empty());
    assert!(entries(&app, "until=2000-01-01T00:00:00Z").await.is_empty());
    app.get("/api/audit?since=yesterday").await.expect(400);
    // Page by page.
    let mut path = "/api/audit?action=server.add&limit=2".to_owned();
    let mut all = Vec::new();
    loop {
        let page = app.get(&path).await;
        all.extend(objects(page.json().as_array().unwrap().clone()));
        let Some(link) = page.headers.get("link") else { break };
        let link = link.to_str().unwrap();
        path = link[1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(all, ["h3", "h2", "h1"]);
}

/// Servers in three blocks.
async fn three_blocks(app: &TestApp) -> Summary {
    for host in ["h1", "h2", "h3"] {
        app.post("/api/servers", &json!({ "hostname": host, "ip": "192.0.2.1" })).await.expect(201);
        export(app).await;
    }
    checked(app, BTreeMap::new()).await.unwrap()
}

async fn the_trail_is_whole_and_every_change_of_it_shows(pair: Pair) {
    let app = TestApp::start(pair).await;
    let whole = three_blocks(&app).await;
    assert!(whole.last >= 3 && whole.entries >= 3, "{whole:?}");
    let kept = heads(&format!("INFO audit head block={} head={}", whole.last, whole.head));
    assert_eq!(checked(&app, kept.clone()).await.unwrap().heads, 1);
    let head = app.get("/api/audit/head").await.expect(200);
    assert_eq!(
        (head["block"].as_u64(), head["head"].as_str()),
        (Some(whole.last), Some(whole.head.as_str()))
    );

    let last = whole.last;
    // Each change, what undoes it, and what is found.
    app.change(
        "UPDATE audit_entries SET entry = REPLACE(entry, '192.0.2.1', '192.0.2.2') WHERE object = 'h2'",
    )
    .await;
    assert!(matches!(checked(&app, kept.clone()).await, Err(Broken::Entries(..))), "an edited entry");
    app.change(
        "UPDATE audit_entries SET entry = REPLACE(entry, '192.0.2.2', '192.0.2.1') WHERE object = 'h2'",
    )
    .await;
    checked(&app, kept.clone()).await.unwrap();

    // What it is found by, too: nobody hides an entry from who looks for it.
    app.change("UPDATE audit_entries SET who = 'somebody' WHERE object = 'h2'").await;
    assert!(matches!(checked(&app, kept.clone()).await, Err(Broken::Damaged(_))), "an edited column");
    app.change("UPDATE audit_entries SET who = 'admin' WHERE object = 'h2'").await;
    checked(&app, kept.clone()).await.unwrap();

    app.change("UPDATE audit_entries SET entry = 'x' WHERE object = 'h2'").await;
    assert!(matches!(checked(&app, kept.clone()).await, Err(Broken::Damaged(_))), "an entry that is no JSON");
    app.change("DELETE FROM audit_entries WHERE object = 'h2'").await;
    assert!(matches!(checked(&app, kept.clone()).await, Err(Broken::Entries(..))), "a removed entry");

    let other = TestApp::start(pair).await;
    let whole = three_blocks(&other).await;
    let kept = BTreeMap::from([(whole.last, whole.head)]);
    other.change(format!("DELETE FROM audit_entries WHERE block_no = {}", whole.last).leak()).await;
    other.change(format!("DELETE FROM audit_blocks WHERE block_no = {}", whole.last).leak()).await;
    let found = checked(&other, kept).await;
    assert_eq!(found, Err(Broken::CutOff { wanted: whole.last, last: whole.last - 1 }), "cut off");
    let found = checked(&other, BTreeMap::new()).await;
    assert!(found.is_ok(), "which only a kept head shows: {found:?}");
    assert!(last >= 3);
    other.change("DELETE FROM audit_blocks WHERE block_no = 1").await;
    other.change("DELETE FROM audit_entries WHERE block_no = 1").await;
    assert_eq!(checked(&other, BTreeMap::new()).await, Err(Broken::NoBeginning(2)));
}

async fn a_rotated_key_goes_on_with_the_trail(pair: Pair) {
    let app = TestApp::start(pair).await;
    let first = app.get("/api/keys").await.expect(200)["fingerprint"].as_str().unwrap().to_owned();
    export(&app).await;
    app.post("/api/keys/rotate", &json!({})).await.expect(201);
    export(&app).await;
    app.post("/api/keys/revoke", &json!({})).await.expect(201);
    let text = export(&app).await;
    let newest = app.get("/api/keys").await.expect(200)["fingerprint"].as_str().unwrap().to_owned();
    for anchor in [first, newest] {
        let mut check = Check::new(anchor.parse().unwrap(), BTreeMap::new());
        text.lines().for_each(|line| check.line(line).unwrap());
        check.finish().unwrap();
    }
}

async fn what_is_too_old_goes_and_the_trail_says_so(pair: Pair) {
    let app = TestApp::start(pair).await;
    let whole = three_blocks(&app).await;
    app.change("UPDATE audit_blocks SET sealed_at = 1 WHERE block_no <= 2").await;
    let audit = &app.running.app.audit;
    let before = Micros::from_seconds(1_000);
    while audit.forget_old(before).await.unwrap() {}
    export(&app).await;
    let left = checked(&app, BTreeMap::new()).await.unwrap();
    assert_eq!(left.first, 3);
    assert!(left.last > whole.last);
    let told = entries(&app, "action=audit.retain").await;
    assert_eq!(told[0]["who"], "controller: retention");
    assert_eq!(told[0]["new"]["block"], 2);
}

async fn two_controllers_write_one_trail(pair: Pair) {
    let app = TestApp::start(pair).await;
    let beside = app.beside().await;
    for n in 0..10 {
        let by = if n % 2 == 0 { &app } else { &beside };
        by.post("/api/servers", &json!({ "hostname": format!("h{n}"), "ip": "192.0.2.1" })).await.expect(201);
    }
    let first = app.running.stop().await;
    first.unwrap();
    beside.post("/api/servers", &json!({ "hostname": "last", "ip": "192.0.2.1" })).await.expect(201);
    export(&beside).await;
    let whole = checked(&beside, BTreeMap::new()).await.unwrap();
    assert!(whole.entries >= 11, "{whole:?}");
}
