//! Commands beyond the document: `Idempotency-Key`, and what a result says that has no exit code of its own.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use signet_common::messages::{Event, Outcome, Rejection, Stream};
use signet_common::time::Micros;
use signet_controller::limits::WATCHERS_MAX;
use signet_controller::store::Statement;
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::support::fake_agent::{FakeAgent, ended, exited};
use crate::support::{ADMIN_TOKEN, Answer, PATIENCE, TestApp};

on_both_pairs!(
    a_key_makes_one_task,
    concurrent_requests_make_one_task,
    exit_codes_are_never_null,
    a_server_without_an_agent_is_a_rejected_target,
    any_bytes_are_answered,
    sizes_are_bounded,
    large_outputs_are_answered_host_by_host,
    no_body_is_a_fault_of_ours,
    secrets_go_when_nothing_needs_them,
    only_so_many_watch_at_the_same_time,
    a_view_that_cannot_be_resumed_is_refused,
);

fn everywhere() -> Value {
    json!({ "target_type": "all", "command": "true" })
}

async fn with_key(app: &TestApp, key: &str, body: &Value) -> Answer {
    let request = app.request(reqwest::Method::POST, "/api/commands").header("idempotency-key", key);
    TestApp::send(request.json(body)).await
}

async fn a_key_makes_one_task(pair: Pair) {
    let app = TestApp::start(pair).await;
    app.post("/api/servers", &json!({ "hostname": "a", "ip": "10.0.0.1" })).await.expect(201);
    let first = with_key(&app, "k1", &everywhere()).await.expect(201);
    let again = with_key(&app, "k1", &everywhere()).await.expect(201);
    assert_eq!(first["task_id"], again["task_id"]);
    let other = with_key(&app, "k1", &json!({ "target_type": "all", "command": "false" })).await.expect(400);
    assert!(other["detail"].as_str().unwrap().contains("Idempotency-Key"), "{other}");
    let second = with_key(&app, "k2", &everywhere()).await.expect(201);
    assert_ne!(first["task_id"], second["task_id"]);
    // What was refused leaves no trace: the key can be used for the right body.
    with_key(&app, "k3", &json!({ "target_type": "all" })).await.expect(400);
    with_key(&app, "k3", &everywhere()).await.expect(201);
    assert_eq!(app.get("/api/tasks").await.expect(200).as_array().unwrap().len(), 3);
    for bad in ["", &"x".repeat(256)] {
        with_key(&app, bad, &everywhere()).await.expect(400);
    }
}

async fn concurrent_requests_make_one_task(pair: Pair) {
    let app = TestApp::start(pair).await;
    app.post("/api/servers", &json!({ "hostname": "a", "ip": "10.0.0.1" })).await.expect(201);
    let body = everywhere();
    let answers = futures_util::future::join_all((0..8).map(|_| with_key(&app, "same", &body))).await;
    let ids: Vec<Value> = answers.into_iter().map(|a| a.expect(201)["task_id"].take()).collect();
    assert!(ids.iter().all(|id| id == &ids[0]), "{ids:?}");
    assert_eq!(app.get("/api/tasks").await.expect(200).as_array().unwrap().len(), 1);
}

async fn exit_codes_are_never_null(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "server1", "web").await;
    let killed = signet_common::messages::CommandResult { signal: Some(9), ..ended(Outcome::Failed) };
    let timed_out = signet_common::messages::CommandResult {
        stderr: b"half".to_vec(),
        signal: Some(15),
        ..ended(Outcome::TimedOut)
    };
    let interrupted = signet_common::messages::CommandResult {
        reason: Some("host rebooted".into()),
        ..ended(Outcome::Interrupted)
    };
    let cases = [
        (exited(7, "", ""), 7, "failed", ""),
        (killed, 137, "failed", ""),
        (timed_out, -2, "timed_out", "half\nCommand timed out"),
        (interrupted, -1, "interrupted", "host rebooted"),
        (ended(Outcome::Expired), -1, "expired", "expired"),
    ];
    for (result, code, state, stderr) in cases {
        let task = app.post("/api/commands", &everywhere()).await.expect(201);
        agent.run_next(result).await;
        let found = finished(&app, &task).await;
        assert_eq!(
            (&found["exit_code"], &found["state"], &found["stderr"]),
            (&json!(code), &json!(state), &json!(stderr))
        );
    }
    let task = app.post("/api/commands", &everywhere()).await.expect(201);
    let command = agent.next_command().await;
    let (jti, at) = (command.jti, Micros::now().0);
    let detail = "users: root is not allowed".to_owned();
    agent.report([Event::Rejected { jti, at, reason: Rejection::Policy, detail }]).await;
    let found = finished(&app, &task).await;
    assert_eq!((&found["exit_code"], &found["state"]), (&json!(-1), &json!("rejected")));
    assert!(found["stderr"].as_str().unwrap().ends_with("users: root is not allowed"), "{found}");
    let task = app.get(&format!("/api/tasks/{}", found["task_id"].as_str().unwrap())).await.expect(200);
    assert_eq!(task["status"], "rejected");
}

/// The one result of a task that has one target.
async fn finished(app: &TestApp, task: &Value) -> Value {
    let path = format!("/api/tasks/{}/results", task["task_id"].as_str().unwrap());
    app.eventually(&path, |results| results != &json!([])).await[0].take()
}

async fn a_server_without_an_agent_is_a_rejected_target(pair: Pair) {
    let app = TestApp::start(pair).await;
    assert_eq!(app.post("/api/commands", &everywhere()).await.status, 404, "no server at all");
    app.post("/api/servers", &json!({ "hostname": "bare", "ip": "10.0.0.1" })).await.expect(201);
    let task = app.post("/api/commands", &everywhere()).await.expect(201);
    assert_eq!(task["status"], "rejected");
    let found = finished(&app, &task).await;
    assert_eq!((&found["exit_code"], &found["hostname"]), (&json!(-1), &json!("bare")));
    assert_eq!((&found["stdout"], &found["stderr"]), (&json!(""), &json!("no_agent")));
}

async fn any_bytes_are_answered(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "server1", "web").await;
    let bytes: Vec<u8> = (0..=255).collect();
    let task = app.post("/api/commands", &everywhere()).await.expect(201);
    let result = signet_common::messages::CommandResult { stdout: bytes.clone(), ..exited(0, "", "") };
    agent.run_next(result).await;
    let found = finished(&app, &task).await;
    assert_eq!(found["stdout"], String::from_utf8_lossy(&bytes).as_ref());
    let path = format!("/api/tasks/{}", task["task_id"].as_str().unwrap());
    let raw = app.get(&format!("{path}/results?encoding=base64")).await.expect(200);
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
    assert_eq!(raw[0]["stdout_base64"], encoded);
    assert_eq!(app.get(&format!("{path}/results?encoding=hex")).await.status, 400);
    let plain = app.request(reqwest::Method::GET, &format!("{path}/targets/server1/stdout"));
    let part = plain.header("range", "bytes=250-").send().await.unwrap();
    assert_eq!((part.status().as_u16(), &part.bytes().await.unwrap()[..]), (206, &bytes[250..]));
}

async fn sizes_are_bounded(pair: Pair) {
    let app = TestApp::start(pair).await;
    app.post("/api/servers", &json!({ "hostname": "a", "ip": "10.0.0.1" })).await.expect(201);
    let body = |command: String| json!({ "target_type": "all", "command": command });
    let long = app.post("/api/commands", &body("a".repeat(131_072))).await.expect(400);
    assert!(long["detail"].as_str().unwrap().contains("stdin"), "{long}");
    app.post("/api/commands", &body("a".repeat(131_071))).await.expect(201);
    let mut large = body("cat".into());
    large["stdin"] = "a".repeat(256 * 1024).into();
    app.post("/api/commands", &large).await.expect(413);
    large["stdin"] = "a".repeat(3 * 1024 * 1024).into();
    app.post("/api/commands", &large).await.expect(413);
}

/// The sizes of the chunks in which a path is answered.
async fn chunks(app: &TestApp, path: &str) -> Vec<usize> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(app.running.addrs[0]).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_TOKEN}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let mut sizes = Vec::new();
    let mut rest = &answer[answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4..];
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        sizes.push(size);
        rest = &rest[end + 2 + size + 2..];
    }
    sizes
}

async fn large_outputs_are_answered_host_by_host(pair: Pair) {
    const PIECE: usize = 16 * 1024;
    let app = TestApp::start(pair).await;
    let mut agents = [FakeAgent::enrol(&app, "a", "web").await, FakeAgent::enrol(&app, "b", "web").await];
    let task = app.post("/api/commands", &everywhere()).await.expect(201);
    let path = format!("/api/tasks/{}", task["task_id"].as_str().unwrap());
    for agent in &mut agents {
        let jti = agent.next_command().await.jti;
        agent.accepted(&jti).await;
        agent.started(&jti).await;
        for report in 0..3 {
            let piece = |n: usize| Event::Output {
                jti: jti.clone(),
                stream: Stream::Stdout,
                offset: (n * PIECE) as u64,
                data: vec![b'x'; PIECE],
            };
            agent.report((report * 24..(report + 1) * 24).map(piece)).await;
        }
        agent.result(&jti, exited(0, "", "")).await;
    }
    app.eventually(&path, |task| task["status"] == "done").await;
    let sizes = chunks(&app, &format!("{path}/results")).await;
    let large: Vec<&usize> = sizes.iter().filter(|size| **size >= 72 * PIECE).collect();
    assert!(large.len() == 2 && large.iter().all(|size| **size < 80 * PIECE), "{sizes:?}");
    let results = app.get(&format!("{path}/results")).await.expect(200);
    for result in results.as_array().unwrap() {
        assert_eq!(result["stdout"].as_str().unwrap().len(), 72 * PIECE);
    }
}

/// Texts as people and their enemies write them: short, long, and of any characters.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        Just(String::new()),
        "\\PC{0,40}",
        any::<String>(),
        (60_usize..400).prop_map(|n| "a".repeat(n)),
        (60_usize..400).prop_map(|n| "界".repeat(n)),
        Just("a\0b".to_owned()),
        Just("web   ".to_owned()),
        Just("zone=".to_owned()),
        (60_usize..400).prop_map(|n| format!("zone={}", "v".repeat(n))),
        Just("x".repeat(70_000)),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<i64>().prop_map(Value::from), (0_i64..100).prop_map(Value::from)];
    prop_oneof![
        4 => any_text().prop_map(Value::from),
        2 => number,
        1 => Just(Value::Null),
        1 => proptest::collection::vec(any_text(), 0..3).prop_map(|v| json!(v)),
        1 => proptest::collection::btree_map(any_text(), any_text(), 0..3).prop_map(|m| json!(m)),
    ]
}

fn any_command() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![Just("node"), Just("group"), Just("all"), Just("label"), Just("nothing")];
    let names = proptest::sample::subsequence(
        vec![
            "argv",
            "timeout",
            "user",
            "env",
            "cwd",
            "stdin",
            "expires_in",
            "batch",
            "max_failures",
            "output_limit",
            "detached",
        ],
        0..3,
    );
    let fields = names.prop_flat_map(|names| {
        let count = names.len();
        (Just(names), proptest::collection::vec(any_value(), count))
    });
    (kind, any_text(), any_text(), fields).prop_map(|(kind, target, command, (names, values))| {
        let mut body = json!({ "target_type": kind, "target": target, "command": command });
        names.iter().zip(values).for_each(|(name, value)| body[*name] = value);
        body
    })
}

async fn no_body_is_a_fault_of_ours(pair: Pair) {
    let app = TestApp::start(pair).await;
    let server = json!({ "hostname": "a", "ip": "10.0.0.1", "group": "web", "labels": { "zone": "" } });
    app.post("/api/servers", &server).await.expect(201);
    let mut runner = TestRunner::default();
    let (mut taken, commands) = (0, any_command());
    for _ in 0..200 {
        let body = commands.new_tree(&mut runner).unwrap().current();
        let answer = app.post("/api/commands", &body).await;
        assert!(answer.status.as_u16() < 500, "{} {}: {body}", answer.status, answer.text);
        taken += u32::from(answer.status == 201);
    }
    assert!(taken > 0, "nothing was taken, so nothing was tried");
    // The other texts that somebody may write into a column.
    let strange = any_text();
    for _ in 0..40 {
        let mut text = || strange.new_tree(&mut runner).unwrap().current();
        let reason = json!({ "paused": true, "reason": text() });
        let server =
            json!({ "hostname": text(), "ip": text(), "group": text(), "labels": { text(): text() } });
        let change = json!({ "group": text(), "labels": { text(): text() } });
        for (method, path, body) in [
            (reqwest::Method::PUT, "/api/dispatch", reason),
            (reqwest::Method::POST, "/api/servers", server),
            (reqwest::Method::PATCH, "/api/servers/a", change),
        ] {
            let answer = TestApp::send(app.request(method, path).json(&body)).await;
            assert!(answer.status.as_u16() < 500, "{path} {}: {body}", answer.text);
        }
    }
}

async fn secrets_go_when_nothing_needs_them(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "a", "web").await;
    let body =
        json!({ "target_type": "all", "command": "true", "env": { "TOKEN": "s3cret" }, "stdin": "s3cret" });
    let done = app.post("/api/commands", &body).await.expect(201);
    agent.run_next(exited(0, "", "")).await;
    let path = format!("/api/tasks/{}", done["task_id"].as_str().unwrap());
    app.eventually(&path, |task| task["status"] == "done").await;
    app.post("/api/commands", &body).await.expect(201);
    let kept = async || {
        let query = Statement::same("SELECT COUNT(*) AS number FROM messages WHERE LENGTH(body) > 0").query();
        app.running.app.store.first::<(i64,)>(query).await.unwrap().unwrap().0
    };
    let dispatch = &app.running.app.dispatch;
    dispatch.forget_bodies(Micros::now()).await.unwrap();
    assert_eq!(kept().await, 2, "it may still be started");
    let later = Micros::now().plus_seconds(86_400);
    assert!(!dispatch.forget_bodies(later).await.unwrap());
    assert_eq!(kept().await, 1, "what is open keeps its message");
    let task = app.get(&path).await.expect(200);
    assert_eq!((&task["env"], &task["stdin_bytes"]), (&json!(["TOKEN"]), &json!(6)));
}

async fn only_so_many_watch_at_the_same_time(pair: Pair) {
    let app = TestApp::start(pair).await;
    let paused = json!({ "paused": true, "reason": null });
    app.put("/api/dispatch", &paused).await.expect(200);
    let mut agent = FakeAgent::new(&app, "b", "web").await;
    agent.hello(&app).await;
    let body = json!({ "target_type": "node", "target": "b", "command": "true" });
    let task = app.post("/api/commands", &body).await.expect(201);
    let path = format!("/api/tasks/{}/events", task["task_id"].as_str().unwrap());
    let watch = async || app.request(reqwest::Method::GET, &path).send().await.unwrap();
    let mut watching = Vec::new();
    for _ in 0..WATCHERS_MAX {
        let answer = watch().await;
        assert_eq!(answer.status(), 200);
        watching.push(answer);
    }
    let refused = app.get(&path).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.expect(429);
    watching.pop();
    eventually(PATIENCE, "the place to be free again", async || {
        (watch().await.status() == 200).then_some(())
    })
    .await;
}

async fn a_view_that_cannot_be_resumed_is_refused(pair: Pair) {
    let app = TestApp::start(pair).await;
    app.post("/api/servers", &json!({ "hostname": "a", "ip": "10.0.0.1" })).await.expect(201);
    let task = app.post("/api/commands", &everywhere()).await.expect(201);
    let path = format!("/api/tasks/{}/events", task["task_id"].as_str().unwrap());
    for wrong in ["x", "1.5", "99999999999999999999", "-"] {
        let request = app.request(reqwest::Method::GET, &path).header("last-event-id", wrong);
        let refused = TestApp::send(request).await.expect(400);
        assert!(refused["detail"].as_str().unwrap().starts_with("Last-Event-ID"), "{refused}");
        assert_eq!(app.get(&format!("{path}?last_event_id={wrong}")).await.status, 400);
    }
    assert_eq!(app.get("/api/tasks/nobody/events").await.status, 404);
    // A place beyond the end, as after a restored database: what is left to tell is how it ended.
    let request = app.request(reqwest::Method::GET, &path).header("last-event-id", "1000000");
    let told = TestApp::send(request).await;
    assert!(told.status == 200 && told.text.contains("event: done"), "{}", told.text);
}
