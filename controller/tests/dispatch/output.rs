//! Output: kept as bytes, shown as text, read in ranges, followed live.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;
use signet_common::messages::{CommandResult, Event, Outcome, Stream, StreamSummary};
use signet_testkit::{Pair, on_both_pairs};

use super::support::TestApp;
use super::support::fake_agent::{FakeAgent, ended, exited};
use super::{ask_node, target_in};

on_both_pairs!(
    pieces_are_read_back_in_ranges,
    bytes_that_are_not_text_survive,
    ends_without_an_exit_code_say_why,
    a_live_view_resumes_where_it_broke_off,
);

async fn pieces_are_read_back_in_ranges(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    let jti = agent.next_command().await.jti;
    let piece = |offset, text: &str| Event::Output {
        jti: jti.clone(),
        stream: Stream::Stdout,
        offset,
        data: text.as_bytes().to_vec(),
    };
    let stdout_summary =
        StreamSummary { bytes: 1_010, omitted_from: Some(10), omitted_bytes: 990, sha256: "0".repeat(64) };
    let result = CommandResult { stdout_summary, ..exited(0, "", "") };
    agent
        .report([
            Event::Accepted { jti: jti.clone(), at: 1 },
            Event::Started { jti: jti.clone(), at: 2 },
            piece(0, "01234"),
            piece(5, "56789"),
            piece(1_000, "abcdefghij"),
            Event::Result { jti: jti.clone(), at: 3, result: Box::new(result) },
        ])
        .await;
    target_in(&app, &id, "h1", "succeeded").await;
    let path = format!("/api/tasks/{id}/targets/h1/stdout");
    let whole = app.get(&path).await;
    assert_eq!((whole.status.as_u16(), whole.text.as_str()), (200, "0123456789abcdefghij"));
    assert_eq!(
        (&whole.headers["signet-omitted-from"], &whole.headers["signet-omitted-bytes"]),
        (&"10".parse().unwrap(), &"990".parse().unwrap())
    );
    let part = TestApp::send(app.request(Method::GET, &path).header("range", "bytes=3-11")).await;
    assert_eq!((part.status.as_u16(), part.text.as_str()), (206, "3456789ab"));
    assert_eq!(part.headers["content-range"], "bytes 3-11/20");
    let none = TestApp::send(app.request(Method::GET, &path).header("range", "bytes=20-")).await;
    assert_eq!(none.status.as_u16(), 416);
    assert_eq!(app.get(&format!("/api/tasks/{id}/targets/h1/stderr")).await.text, "");
    assert_eq!(app.get(&format!("/api/tasks/{id}/targets/h2/stdout")).await.status.as_u16(), 404);
    let results = app.get(&format!("/api/tasks/{id}/results")).await.expect(200);
    assert_eq!(
        (&results[0]["stdout"], &results[0]["stdout_omitted_from"]),
        (&json!("0123456789abcdefghij"), &json!(10))
    );
}

async fn bytes_that_are_not_text_survive(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    let bytes = vec![0, 255, b'a', 0x1b, b'[', b'2', b'J', 0xc3, 0x28];
    agent.run_next(CommandResult { stdout: bytes.clone(), ..exited(0, "", "") }).await;
    target_in(&app, &id, "h1", "succeeded").await;
    let results = app.get(&format!("/api/tasks/{id}/results?encoding=base64")).await.expect(200);
    assert_eq!(results[0]["stdout_base64"], STANDARD.encode(&bytes));
    assert_eq!(results[0]["stdout"], String::from_utf8_lossy(&bytes).as_ref());
}

async fn ends_without_an_exit_code_say_why(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let timed_out =
        CommandResult { stderr: b"partial".to_vec(), signal: Some(15), ..ended(Outcome::TimedOut) };
    let rebooted = CommandResult { reason: Some("host rebooted".into()), ..ended(Outcome::Interrupted) };
    let killed = CommandResult { signal: Some(9), ..ended(Outcome::Failed) };
    let cases = [
        (timed_out, "timed_out", -2, "partial\nCommand timed out"),
        (rebooted, "interrupted", -1, "host rebooted"),
        (killed, "failed", 137, ""),
    ];
    for (result, state, code, stderr) in cases {
        let id = ask_node(&app, "h1").await;
        agent.run_next(result).await;
        target_in(&app, &id, "h1", state).await;
        let results = app.get(&format!("/api/tasks/{id}/results")).await.expect(200);
        assert_eq!(
            (&results[0]["exit_code"], &results[0]["stderr"]),
            (&json!(code), &json!(stderr)),
            "{state}"
        );
    }
}

async fn a_live_view_resumes_where_it_broke_off(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let id = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "hello\n", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
    let path = format!("/api/tasks/{id}/events");
    let all = app.get(&path).await;
    assert_eq!(all.headers["content-type"], "text/event-stream");
    let events: Vec<&str> = all.text.lines().filter_map(|l| l.strip_prefix("event: ")).collect();
    assert_eq!(events, ["output", "state", "task", "done"], "{}", all.text);
    let last = all.text.lines().rev().find_map(|l| l.strip_prefix("id: ")).unwrap();
    let rest = TestApp::send(app.request(Method::GET, &path).header("last-event-id", last)).await;
    let events: Vec<&str> = rest.text.lines().filter_map(|l| l.strip_prefix("event: ")).collect();
    assert_eq!(events, ["task", "done"], "{}", rest.text);
    let bad = TestApp::send(app.request(Method::GET, &path).header("last-event-id", "x")).await;
    assert_eq!(bad.status.as_u16(), 400);
}
