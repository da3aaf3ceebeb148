//! Commands from the queue to their result.

use std::time::Duration;

use serde_json::json;
use signet_common::PayloadType;
use signet_common::ids::Jti;
use signet_common::messages::{BusyReason, Event, Outcome, Rejection};

use crate::controller::{Controller, command, now};
use crate::support::{Agent, config};

#[tokio::test]
async fn enrols_runs_and_reports() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let jti = controller.command(&agent.id, json!({ "command": "echo out; echo err >&2; exit 3" })).await;
    let result = controller.result(&jti).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(3)));
    assert_eq!((result.stdout.as_slice(), result.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    // When the host is too busy for that, one of the next does.
    let mut reports = controller.state().reports;
    for _ in 0..10 {
        if reports == 1 {
            break;
        }
        let before = controller.state().reports;
        let jti = controller.command(&agent.id, json!({})).await;
        controller.result(&jti).await;
        reports = controller.state().reports - before;
    }
    assert_eq!(reports, 1, "a short command costs one report");
    let heartbeat = controller.heartbeat(|h| h.head >= 3).await;
    assert_eq!((heartbeat.hostname.as_str(), heartbeat.busy, heartbeat.keyring), ("web1", None, 1));
    agent.stop().await;
    assert!(controller.heartbeat(|h| h.stopping).await.n > heartbeat.n);
}

#[tokio::test]
async fn a_duplicate_runs_once_and_is_counted() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let marks = dir.path().join("marks");
    let (jti, payload) = command(&agent.id, json!({ "command": format!("echo x >> {}", marks.display()) }));
    let envelope = controller.sign(PayloadType::Command, &payload);
    for _ in 0..3 {
        controller.publish(&agent.id, envelope.clone()).await;
    }
    controller.result(&jti).await;
    controller.publish(&agent.id, envelope.clone()).await;
    let last = controller.command(&agent.id, json!({})).await;
    controller.result(&last).await;
    agent.stop().await;

    // Also by the next start.
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    controller.publish(&agent.id, envelope).await;
    let last = controller.command(&agent.id, json!({})).await;
    controller.result(&last).await;
    assert_eq!(std::fs::read_to_string(marks).unwrap(), "x\n");
    assert_eq!(controller.state().count("result", &jti), 1);
    let start = controller.state().hellos.last().unwrap().start_id.clone();
    let heartbeat = controller.heartbeat(|h| h.start_id == start && h.stopping);
    let (heartbeat, ()) = tokio::join!(heartbeat, agent.stop());
    assert_eq!(heartbeat.refused["duplicate"], 1);
}

#[tokio::test]
async fn what_is_not_for_now_or_not_for_us_is_counted_and_not_run() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let expired = json!({ "iat": now() - 700, "exp": now() - 1 });
    let other = json!({ "aud": ["b".repeat(40)] });
    let future = json!({ "iat": now() + 300 });
    for change in [expired, other, future] {
        controller.command(&agent.id, change).await;
    }
    let (_, payload) = command(&agent.id, json!({}));
    let mut forged = controller.sign(PayloadType::Command, &payload);
    forged.body = serde_json::to_vec(&command(&agent.id, json!({})).1).unwrap().into();
    controller.publish(&agent.id, forged).await;
    let good = controller.command(&agent.id, json!({})).await;
    assert_eq!(controller.result(&good).await.outcome, Outcome::Succeeded);
    let (heartbeat, ()) = tokio::join!(controller.heartbeat(|h| h.stopping), agent.stop());
    for reason in ["expired", "audience", "future", "signature"] {
        assert_eq!(heartbeat.refused.get(reason), Some(&1), "{reason} {:?}", heartbeat.refused);
    }
    assert_eq!(controller.state().events.len(), 3, "no event but the good command's");
}

#[tokio::test]
async fn unknown_fields_deployments_and_what_cannot_start_are_rejected_aloud() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let unknown = controller.command(&agent.id, json!({ "colour": "red" })).await;
    let nobody = controller.command(&agent.id, json!({ "user": "no-such-user" })).await;
    let (deploy, payload) = command(&agent.id, json!({}));
    controller.publish(&agent.id, controller.sign(PayloadType::Deploy, &payload)).await;
    for (jti, expected) in
        [(unknown, Rejection::Unsupported), (nobody, Rejection::Exec), (deploy, Rejection::Unsupported)]
    {
        let found = controller
            .wait("a rejection", |state| {
                state.events.iter().find_map(|event| match event {
                    Event::Rejected { jti: of, reason, detail, .. } if *of == jti => {
                        Some((*reason, detail.clone()))
                    }
                    _ => None,
                })
            })
            .await;
        assert_eq!(found.0, expected, "{}", found.1);
    }
    agent.stop().await;
}

#[tokio::test]
async fn cancels_what_runs_what_waits_and_what_never_came() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let one_slot = signet_agent::AgentConfig { slots: 1, ..config(&controller, dir.path()) };
    let agent = Agent::start(&controller, one_slot).await;
    let runs = controller.command(&agent.id, json!({ "command": "sleep 1000", "timeout": 600 })).await;
    controller.started(&runs).await;
    let waits = controller.command(&agent.id, json!({})).await;
    controller.wait("accepted", |state| state.find("accepted", &waits).then_some(())).await;
    let (late, payload) = command(&agent.id, json!({}));

    controller.cancel(&agent.id, &waits).await;
    controller.cancel(&agent.id, &late).await;
    assert_eq!(controller.result(&waits).await.outcome, Outcome::Cancelled);
    assert_eq!(controller.result(&late).await.outcome, Outcome::Cancelled);
    assert!(!controller.state().find("started", &waits));
    assert!(!controller.state().find("result", &runs));
    controller.cancel(&agent.id, &runs).await;
    assert_eq!(controller.result(&runs).await.outcome, Outcome::Cancelled);

    // The one that was cancelled before it came is known when it comes.
    controller.publish(&agent.id, controller.sign(PayloadType::Command, &payload)).await;
    let last = controller.command(&agent.id, json!({})).await;
    controller.result(&last).await;
    assert!(!controller.state().find("accepted", &late));
    agent.stop().await;
}

#[tokio::test]
async fn what_expires_while_it_waits_never_starts() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let one_slot = signet_agent::AgentConfig { slots: 1, ..config(&controller, dir.path()) };
    let agent = Agent::start(&controller, one_slot).await;
    let runs = controller.command(&agent.id, json!({ "command": "sleep 1000", "timeout": 600 })).await;
    controller.started(&runs).await;
    let waits = controller.command(&agent.id, json!({ "exp": now() + 2 })).await;
    let result = controller.result(&waits).await;
    assert_eq!(result.outcome, Outcome::Expired);
    assert!(!controller.state().find("started", &waits));
    controller.cancel(&agent.id, &runs).await;
    controller.result(&runs).await;
    agent.stop().await;
}

#[tokio::test]
async fn long_output_comes_while_it_runs_and_adds_up() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let text = "head -c 300000 /dev/zero | tr '\\0' x";
    let jti = controller.command(&agent.id, json!({ "command": text })).await;
    let result = controller.result(&jti).await;
    assert_eq!((result.stdout_summary.bytes, result.stdout_summary.omitted_from), (300_000, None));
    let mut whole = Vec::new();
    for event in &controller.state().events {
        if let Event::Output { offset, data, .. } = event {
            assert_eq!(*offset, whole.len() as u64);
            whole.extend_from_slice(data);
        }
    }
    assert_eq!(whole, vec![b'x'; 300_000]);
    agent.stop().await;
}

#[tokio::test]
async fn more_than_may_wait_is_busy_and_comes_again() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let one_slot = signet_agent::AgentConfig { slots: 1, ..config(&controller, dir.path()) };
    let agent = Agent::start(&controller, one_slot).await;
    let runs = controller.command(&agent.id, json!({ "command": "sleep 1000", "timeout": 600 })).await;
    controller.started(&runs).await;
    // 65 messages of about 1 MB are more than the bytes that may wait.
    let stdin = "x".repeat(1_000_000);
    for _ in 0..70 {
        controller.command(&agent.id, json!({ "stdin": stdin })).await;
    }
    let heartbeat = controller.heartbeat(|h| h.refused.contains_key("busy")).await;
    assert!(heartbeat.waiting >= 60, "{}", heartbeat.waiting);
    agent.ask_to_stop();
    let heartbeat = controller.heartbeat(|h| h.busy == Some(BusyReason::Stopping)).await;
    assert_eq!(heartbeat.running, 1);
    // Control messages are obeyed to the last.
    controller.cancel(&agent.id, &runs).await;
    controller.result(&runs).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_stop_lets_what_runs_end_and_keeps_what_waits() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let one_slot = signet_agent::AgentConfig { slots: 1, ..config(&controller, dir.path()) };
    let agent = Agent::start(&controller, one_slot.clone()).await;
    let go = dir.path().join("go");
    let text = format!("until [ -e {} ]; do sleep 0.01; done; echo ended", go.display());
    let runs = controller.command(&agent.id, json!({ "command": text })).await;
    controller.started(&runs).await;
    let waits = controller.command(&agent.id, json!({ "command": "echo later" })).await;
    controller.wait("accepted", |state| state.find("accepted", &waits).then_some(())).await;
    agent.ask_to_stop();
    controller.heartbeat(|h| h.busy == Some(BusyReason::Stopping)).await;
    std::fs::write(go, "").unwrap();
    agent.stop().await;
    assert_eq!(controller.result(&runs).await.stdout, b"ended\n");
    assert!(!controller.state().find("started", &waits));

    let agent = Agent::start(&controller, one_slot).await;
    assert_eq!(controller.result(&waits).await.stdout, b"later\n");
    agent.stop().await;
}

#[tokio::test]
async fn what_does_not_end_in_time_is_interrupted_at_a_stop() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let stop_grace = Duration::from_millis(200);
    let hasty = signet_agent::AgentConfig { stop_grace, ..config(&controller, dir.path()) };
    let agent = Agent::start(&controller, hasty).await;
    let runs = controller.command(&agent.id, json!({ "command": "sleep 1000", "timeout": 600 })).await;
    controller.started(&runs).await;
    agent.stop().await;
    let result = controller.result(&runs).await;
    assert_eq!(result.outcome, Outcome::Interrupted);
    assert!(result.reason.is_some_and(|why| why.contains("agent stopped")));
}

#[tokio::test]
async fn many_commands_all_end_once() {
    let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
    let agent = Agent::start(&controller, config(&controller, dir.path())).await;
    let mut all: Vec<Jti> = Vec::new();
    for _ in 0..100 {
        all.push(controller.command(&agent.id, json!({ "command": "true" })).await);
    }
    for jti in &all {
        controller.result(jti).await;
        for kind in ["accepted", "started", "result"] {
            assert_eq!(controller.state().count(kind, jti), 1, "{kind}");
        }
    }
    tokio::time::timeout(Duration::from_secs(30), agent.stop()).await.unwrap();
}
