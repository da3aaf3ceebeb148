//! The jobs document: every endpoint, block, parameter and error code of it, against a running controller. What would be
//! `ansible-playbook` is a script that says what the examples show, and waits where they show a moment in between.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use signet_testkit::ssh::SshKey;
use signet_testkit::{Pair, on_both_pairs};

use crate::compare::Extras;
use crate::contract::Contract;
use crate::document::{Document, Endpoint};
use crate::support::{Answer, TestApp};

on_both_pairs!(
    the_document_is_kept,
    a_changed_document_is_found_out,
    what_it_leaves_open,
    all_that_is_wrong_comes_at_once
);

const TEXT: &str = include_str!("../specs/jobs.md");

/// Reads the document, and its example of a log in text.
fn read(text: &str) -> (Document, String) {
    let (mut document, mut log) = (Document::default(), String::new());
    let (mut current, mut label) = (None::<String>, String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            let block = block.join("\n");
            let Ok(value) = serde_json::from_str::<Value>(&block) else {
                if label.contains("text") {
                    log = block;
                }
                continue;
            };
            let endpoint = current.as_ref().and_then(|name| document.endpoints.get_mut(name));
            match endpoint {
                Some(endpoint) if label.contains("Request") => endpoint.request = Some(value),
                Some(endpoint) => endpoint.response = Some(value),
                None if value["error"]["code"] == "VALIDATION_ERROR" => document.error = Some(value),
                None => {}
            }
            continue;
        }
        let words: Vec<&str> = trimmed.split(' ').collect();
        if let [number, method @ ("GET" | "POST"), path] = words[..]
            && number.starts_with(|c: char| c.is_ascii_digit())
        {
            let path = path.trim_end_matches("（可選）");
            current = Some(format!("{method} {path}"));
            document.endpoints.insert(format!("{method} {path}"), Endpoint::default());
        } else if trimmed.starts_with("## ") {
            current = None;
        } else if let Some(names) = trimmed.strip_prefix("- Query：") {
            let endpoint = document.endpoints.get_mut(current.as_ref().unwrap()).unwrap();
            let names = names.split(['，', '；', ',']).filter_map(|part| part.split(['=', '（']).next());
            let named = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            endpoint.parameters = names.map(str::trim).filter(named).map(str::to_owned).collect();
        } else if let Some((code, status)) = trimmed.strip_prefix("- ").and_then(|rest| rest.split_once(" ("))
            && let Some(status) = status.strip_suffix(')').and_then(|status| status.parse().ok())
        {
            document.error_texts.insert(status, vec![code.to_owned()]);
        }
        label = trimmed.to_owned();
    }
    (document, log)
}

#[test]
fn the_document_is_read_whole() {
    let (document, log) = read(TEXT);
    assert_eq!(document.endpoints.len(), 5);
    let blocks = document
        .endpoints
        .values()
        .map(|e| usize::from(e.request.is_some()) + usize::from(e.response.is_some()));
    // Three more show the envelope alone, and one an error.
    assert_eq!(blocks.sum::<usize>() + 3, TEXT.matches("```json").count());
    assert_eq!(
        document.endpoints["GET /api/v1/jobs"].parameters,
        ["page", "page_size", "status", "from", "to"]
    );
    assert_eq!(document.endpoints["GET /api/v1/jobs/{job_id}/logs"].parameters, ["format", "from_id"]);
    assert_eq!(document.error_texts.keys().copied().collect::<Vec<_>>(), [404, 422, 500]);
    assert!(log.starts_with("PLAY [all]"));
}

async fn the_document_is_kept(pair: Pair) {
    let problems = check(pair, TEXT).await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

async fn a_changed_document_is_found_out(pair: Pair) {
    let text = TEXT
        .replacen("page, page_size, status, from, to", "page, page_size, status, from, to, more", 1)
        .replacen("\"targets_count\":2", "\"targets_count\":4", 1)
        .replacen("\"elapsed_ms\": 8200", "\"elapsed_ms\": \"8200\"", 1)
        .replacen("- NOT_FOUND (404)", "- NOT_FOUND (404)\n- TEAPOT (418)", 1);
    let problems = check(pair, &text).await;
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

/// Says what the examples show.
fn pretend(dir: &Path, log: &str) -> std::path::PathBuf {
    let (before, after) = log.split_once("ok: [").unwrap();
    let script = format!(
        r#"#!/bin/sh
here=$(dirname "$0")
say() {{ printf '%s\n' "$1" >> "$SIGNET_JOB_RESULTS"; }}
if ! grep -q 192.0.2.11 "$2"; then
    for host in a b c; do say "{{\"event\":\"ok\",\"host\":\"$host\",\"changed\":true}}"; done
    exit 0
fi
say '{{"event":"start","host":"192.0.2.10"}}'
say '{{"event":"start","host":"192.0.2.11"}}'
say '{{"event":"ok","host":"192.0.2.10","changed":true,"elapsed_ms":8200}}'
cat <<'TEXT'
{before}TEXT
while [ ! -e "$here/go" ]; do sleep 0.02; done
say '{{"event":"ok","host":"192.0.2.11","changed":false,"elapsed_ms":900}}'
cat <<'TEXT'
ok: [{after}
TEXT
"#
    );
    let path = dir.join("ansible-playbook");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn started(pair: Pair, dir: &Path, log: &str) -> TestApp {
    let program = pretend(dir, log);
    TestApp::start_with(pair.parts().await, |settings| settings.deploying.ansible_playbook = program).await
}

async fn check(pair: Pair, text: &str) -> Vec<String> {
    let (document, log) = read(text);
    let mut contract = Contract::of(document);
    let dir = tempfile::tempdir().unwrap();
    let app = started(pair, dir.path(), &log).await;
    // The examples begin late.
    app.change("UPDATE counters SET last = 121 WHERE name = 'jobs'").await;
    let (post, list) = ("POST /api/v1/jobs", "GET /api/v1/jobs");
    let mut body = contract.request(post);
    assert!(body["targets"][0]["auth"]["private_key"].as_str().unwrap().contains("\n...\n"));
    // The example's key is cut short, so it is no key; a true one takes its place.
    let key = SshKey::ed25519(dir.path(), "key");
    body["targets"][0]["auth"]["private_key"] = key.private().into();
    let other = &contract.response(list)["data"]["items"][1];
    let hosts = ["a", "b", "c"].map(
        |host| json!({ "host": host, "username": "u", "auth": { "type": "password", "password": "secret" } }),
    );
    let first = json!({ "git_repo": other["git_repo"], "git_branch": other["git_branch"], "dest_path": "/srv/other",
        "targets": hosts });
    assert_eq!(app.post("/api/v1/jobs?wait=30", &first).await.expect(200)["data"]["status"], "SUCCESS");

    contract.answered(post, 202, &app.post("/api/v1/jobs", &body).await, Extras::None);
    let path = "/api/v1/jobs/job_123";
    let shown = |job: &Value| {
        job["data"]["targets"][0]["status"] == "SUCCESS" && job["data"]["targets"][1]["status"] == "RUNNING"
    };
    app.eventually(path, shown).await;
    // Fields beyond the document stand behind its own.
    contract.answered("GET /api/v1/jobs/{job_id}", 200, &app.get(path).await, Extras::Behind);
    contract.answered(list, 200, &app.get("/api/v1/jobs").await, Extras::None);
    for (parameter, query) in [
        ("page", "page=1"),
        ("page_size", "page_size=20"),
        ("status", "status=running"),
        ("from", "from=2025-10-31T00:00:00Z"),
        ("to", "to=2999-01-01"),
    ] {
        let found = app.get(&format!("/api/v1/jobs?{query}")).await.expect(200);
        assert_eq!(found["data"]["items"][0]["job_id"], "job_123", "{query}");
        contract.parameter(list, parameter);
    }
    let early = app.post(&format!("{path}/retry"), &json!({})).await;
    assert_eq!(early.status, 409, "{}", early.text);
    std::fs::write(dir.path().join("go"), "").unwrap();
    app.eventually(path, |job| job["data"]["status"] == "SUCCESS").await;
    logs(&app, &mut contract, path, &log).await;
    let retried = app.post(&format!("{path}/retry"), &json!({})).await;
    contract.answered("POST /api/v1/jobs/{job_id}/retry", 202, &retried, Extras::None);
    errors(&app, &mut contract).await;
    contract.finish()
}

async fn logs(app: &TestApp, contract: &mut Contract, path: &str, log: &str) {
    let endpoint = "GET /api/v1/jobs/{job_id}/logs";
    for query in ["", "?format=text", "?format=text&from_id=3"] {
        let text = app.get(&format!("{path}/logs{query}")).await;
        assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(text.text, format!("{log}\n"));
    }
    contract.parameter(endpoint, "format");
    let answer = app.get(&format!("{path}/logs?format=json")).await;
    let all = answer.json()["data"].clone();
    let lines = all["lines"].as_array().unwrap();
    let shown = contract.response(endpoint)["data"]["lines"][0].clone();
    let same = |name: &str| lines[0][name] == shown[name];
    assert!(same("id") && same("host") && shown["ts"] == "...", "{}", lines[0]);
    assert!(crate::compare::is_time(lines[0]["ts"].as_str().unwrap()));
    let begin = shown["line"].as_str().unwrap().trim_end_matches('.');
    assert!(lines[0]["line"].as_str().unwrap().starts_with(begin));
    let names = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&lines[0]), names(&shown));
    assert_eq!(names(&all), ["lines", "next_from_id", "finished"]);
    contract.seen(endpoint);
    contract.seen(&format!("{endpoint} 响应"));
    // No gap; each line is about the host that it names.
    let ids: Vec<i64> = lines.iter().map(|line| line["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, (1..=i64::try_from(lines.len()).unwrap()).collect::<Vec<_>>());
    let about = |host: &str| lines.iter().filter(|line| line["host"] == host).count();
    assert_eq!((about("192.0.2.10"), about("192.0.2.11")), (2, 2));
    let rest = app.get(&format!("{path}/logs?format=json&from_id=3")).await.expect(200);
    assert_eq!(rest["data"]["lines"], json!(lines[3..]));
    assert_eq!(
        (&rest["data"]["next_from_id"], &rest["data"]["finished"]),
        (&json!(lines.len()), &json!(true))
    );
    contract.parameter(endpoint, "from_id");
}

async fn errors(app: &TestApp, contract: &mut Contract) {
    let target = json!({ "host": "h", "username": "u", "auth": { "type": "password", "password": "x" } });
    let body = json!({ "dest_path": "/srv/x", "targets": [target] });
    // Exactly the document's.
    contract.failed(422, &app.post("/api/v1/jobs", &body).await, |_| {});
    contract.code(422, "VALIDATION_ERROR");
    let error = |code: &'static str, message: &'static str| {
        move |shape: &mut Value| shape["error"] = json!({ "code": code, "message": message, "details": {} })
    };
    for path in ["job_9", "9", "job_01", "nothing"] {
        let gone = app.get(&format!("/api/v1/jobs/{path}")).await;
        contract.failed(404, &gone, error("NOT_FOUND", "Job not found"));
    }
    contract.code(404, "NOT_FOUND");
    app.change("UPDATE jobs SET status = 'x' WHERE id = 123").await;
    let broken = app.get("/api/v1/jobs/job_123").await;
    contract.failed(500, &broken, error("INTERNAL_ERROR", "Internal Server Error"));
    contract.code(500, "INTERNAL_ERROR");
    let anonymous = TestApp::send(app.anonymous(Method::GET, "/api/v1/jobs")).await;
    contract.failed(401, &anonymous, error("UNAUTHORIZED", "Not authenticated"));
}

async fn what_it_leaves_open(pair: Pair) {
    let dir = tempfile::tempdir().unwrap();
    let app = started(pair, dir.path(), &read(TEXT).1).await;
    let refused = async |answer: Answer| -> Value { answer.expect(422)["error"]["details"].take() };
    let broken =
        app.request(Method::POST, "/api/v1/jobs").header("content-type", "application/json").body("{");
    assert_eq!(refused(TestApp::send(broken).await).await, json!({ "body": "invalid JSON" }));
    let body = json!({ "git_repo": "ftp://x", "targets": [
        { "host": "a", "username": "u", "auth": { "type": "private_key" } },
        { "host": "b", "username": "u", "auth": { "type": "password" } },
    ], "run_mode": "both" });
    let found = refused(app.post("/api/v1/jobs", &body).await).await;
    assert_eq!(found["targets[1].auth.password"], "required");
    assert_eq!(found["targets[0].auth.private_key"], "required");
    assert_eq!(found.as_object().unwrap().len(), 5, "{found}");
    for (query, field) in [
        ("page=0", "page"),
        ("page_size=many", "page_size"),
        ("status=gone", "status"),
        ("from=yesterday", "from"),
        ("to=x", "to"),
    ] {
        let found = refused(app.get(&format!("/api/v1/jobs?{query}")).await).await;
        assert_eq!(found.as_object().unwrap().keys().collect::<Vec<_>>(), [field]);
    }
    let list = app.get("/api/v1/jobs?page=7&page_size=500").await.expect(200);
    assert_eq!(list["data"], json!({ "items": [], "total": 0, "page": 7, "page_size": 100 }));

    // A job that waits for the script, cancelled; one behind it for the same place waits for its turn.
    let target = |host: &str| json!({ "host": host, "username": "u", "auth": { "type": "password", "password": "p-secret" } });
    let body = json!({ "git_repo": "https://h/x.git", "dest_path": "/srv/a",
        "targets": [target("192.0.2.10"), target("192.0.2.11")] });
    let made = async || {
        app.post("/api/v1/jobs", &body).await.expect(202)["data"]["job_id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (made().await, made().await);
    let path = |id: &str| format!("/api/v1/jobs/{id}");
    app.eventually(&path(&first), |job| job["data"]["targets"][0]["status"] == "SUCCESS").await;
    assert_eq!(app.get(&path(&second)).await.expect(200)["data"]["status"], "PENDING");
    let cancelled = app.post(&format!("{}/cancel", path(&second)), &json!({})).await.expect(202);
    assert_eq!(cancelled["data"]["status"], "CANCELLED");
    app.post(&format!("{}/cancel", path(&first)), &json!({})).await.expect(202);
    let over = app.eventually(&path(&first), |job| job["data"]["status"] == "CANCELLED").await;
    assert_eq!(over["data"]["targets"][0]["status"], "SUCCESS");
    assert_eq!(over["data"]["targets"][1]["status"], "CANCELLED");
    assert_eq!(over["data"]["git_branch"], Value::Null);
    let again = app.post(&format!("{}/cancel", path(&first)), &json!({})).await;
    assert_eq!(again.status, 202, "it is cancelled: {}", again.text);
    let log = app.get(&format!("{}/logs", path(&first))).await.text;
    assert!(log.contains("cancelled: [192.0.2.11]"), "{log}");

    // What the job logged in with is kept for a week, not longer.
    app.change("UPDATE job_secrets SET expires_at = 1").await;
    assert_eq!(app.post(&format!("{}/retry", path(&first)), &json!({})).await.status, 409);
    for (query, status) in
        [("?format=xml", 422), ("?format=json&from_id=-1", 422), ("?format=json&from_id=9", 200)]
    {
        assert_eq!(app.get(&format!("{}/logs{query}", path(&first))).await.status.as_u16(), status);
    }
}

/// Who has no log-in must be enrolled; that is told with everything else that is wrong.
async fn all_that_is_wrong_comes_at_once(pair: Pair) {
    let app = TestApp::start(pair).await;
    let body = json!({ "git_repo": "ftp://x", "targets": [
        { "host": "a", "username": "u" },
        { "host": "nobody" },
        { "group": "none" },
        { "host": "b", "username": "u", "auth": { "type": "password" } },
    ], "run_mode": "both" });
    let found = app.post("/api/v1/jobs", &body).await.expect(422)["error"]["details"].take();
    let wanted = [
        "dest_path",
        "git_repo",
        "run_mode",
        "targets[0].auth",
        "targets[1].auth",
        "targets[2].group",
        "targets[3].auth.password",
    ];
    let fields: std::collections::BTreeSet<&str> =
        found.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, wanted.into());
}
