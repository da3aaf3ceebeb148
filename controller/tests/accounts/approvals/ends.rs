//! How requests end that nobody approved; and that each ends once.

use serde_json::json;
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::World;
use crate::support::PATIENCE;
use crate::support::fake_agent::exited;

on_both_pairs!(
    what_is_refused_never_runs,
    what_is_cancelled_never_runs,
    what_nobody_approves_in_time_expires,
    a_host_that_goes_away_leaves_the_rest,
    a_request_ends_once,
    the_pause_switch_holds_what_was_approved,
);

async fn what_is_refused_never_runs(pair: Pair) {
    let mut world = World::new(pair, 2).await;
    let task = world.asked().await;
    world.approve(&world.bob, &task).await.expect(200);
    let path = format!("/api/approvals/{task}/refuse");
    let long = json!({ "reason": "x".repeat(1_001) });
    assert_eq!(world.carol.post(&world.app, &path, &long).await.status, 400);
    let said = world.carol.post(&world.app, &path, &json!({ "reason": "not on a Friday" })).await.expect(200);
    assert_eq!((&said["state"], &said["decided_by"]), (&json!("refused"), &json!("carol")));
    let detail = world.until(&task, "rejected").await;
    assert_eq!(detail["targets"][0]["reason"], "not approved: refused by carol: not on a Friday");
    assert_eq!(detail["approval"]["reason"], "not on a Friday");
    assert_eq!(world.approve(&world.bob, &task).await.expect(200)["state"], "refused", "said before");
    assert_eq!(world.approve(&world.carol, &task).await.status, 409);
    assert_eq!(world.carol.post(&world.app, &path, &json!({})).await.status, 409);
    assert!(world.host.try_next().await.is_none());
    assert_eq!(world.app.number("SELECT COUNT(*) FROM messages").await, 0);
    let listed = world.app.get("/api/approvals?state=refused").await.expect(200);
    assert_eq!(listed[0]["task_id"], task);
}

async fn what_is_cancelled_never_runs(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let task = world.asked().await;
    let detail =
        world.alice.post(&world.app, &format!("/api/tasks/{task}/cancel"), &json!({})).await.expect(200);
    assert_eq!((&detail["status"], &detail["approval"]["state"]), (&json!("cancelled"), &json!("ended")));
    assert_eq!(world.approve(&world.bob, &task).await.status, 409);
    assert!(world.host.try_next().await.is_none());
    assert_eq!(world.app.get("/api/approvals?state=awaiting").await.expect(200), json!([]));
    assert_eq!(world.app.get("/api/approvals?state=ended").await.expect(200)[0]["task_id"], task);
}

async fn what_nobody_approves_in_time_expires(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let (late, task) = (world.asked().await, world.asked().await);
    // Before the sweep comes to it.
    world.app.change("UPDATE approval_requests SET not_after = 1").await;
    assert_eq!(world.approve(&world.bob, &late).await.status, 409);
    world.app.change("UPDATE deliveries SET deadline_at = 1").await;
    for task in [&late, &task] {
        let detail = world.until(task, "expired").await;
        assert_eq!(detail["targets"][0]["reason"], "not approved in time");
        assert_eq!(world.approve(&world.bob, task).await.status, 409);
    }
    assert!(world.host.try_next().await.is_none());
    // The twin is approved in time, and has from then on as long as it would have had.
    let twin = world.asked().await;
    world.approve(&world.bob, &twin).await.expect(200);
    let command = world.host.run_next(exited(0, "", "")).await;
    assert_eq!(command.exp, command.iat + 600);
}

async fn a_host_that_goes_away_leaves_the_rest(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let mut other = super::agent(&world.app, "prod2", "prod").await;
    let (task, lonely) = (world.asked().await, {
        let body = json!({ "target_type": "node", "target": "prod2", "command": "true" });
        let made = world.alice.post(&world.app, "/api/commands", &body).await.expect(201);
        made["task_id"].as_str().unwrap().to_owned()
    });
    other.begin_log();
    other.hello(&world.app).await;
    let detail = world.until(&lonely, "rejected").await;
    assert_eq!(detail["targets"][0]["reason"], "new log");
    assert_eq!(world.approve(&world.bob, &lonely).await.status, 409);
    world.approve(&world.bob, &task).await.expect(200);
    let command = world.host.run_next(exited(0, "", "")).await;
    assert_eq!(command.aud, [world.host.id.clone()], "not the one that refuses what is older than its log");
    world.until(&task, "done").await;
}

async fn a_request_ends_once(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let beside = world.app.beside().await;
    for round in 0..8 {
        let task = world.asked().await;
        if round % 2 == 0 {
            world.app.change("UPDATE deliveries SET deadline_at = 1 WHERE state = 'waiting'").await;
        }
        let digest = world.app.get(&format!("/api/approvals/{task}")).await.expect(200)["digest"].clone();
        let (approve, refuse) =
            (format!("/api/approvals/{task}/approve"), format!("/api/approvals/{task}/refuse"));
        let (agree, cancel) = (json!({ "digest": digest }), format!("/api/tasks/{task}/cancel"));
        let none = json!({});
        let (bob, carol, no, cancelled) = tokio::join!(
            world.bob.post(&world.app, &approve, &agree),
            world.carol.post(&beside, &approve, &agree),
            world.carol.post(&world.app, &refuse, &none),
            world.alice.post(&beside, &cancel, &none),
        );
        assert!(cancelled.status.is_success());
        let decided = [&bob, &carol, &no].iter().filter(|a| a.status.is_success()).count();
        assert!(decided <= 1, "{} {} {}", bob.text, carol.text, no.text);
        let state = world.state(&task).await;
        if state == "approved" {
            // A cancel that comes after it is on the agent's word.
            let jti = eventually(PATIENCE, "the message or its cancel", async || {
                let detail = world.app.get(&format!("/api/tasks/{task}")).await.expect(200);
                Some(detail["targets"][0]["state"].clone()).filter(|s| s == "cancelled" || s == "sent")
            });
            if jti.await == "sent" {
                world.host.run_next(exited(0, "", "")).await;
                world.until(&task, "done").await;
            }
        } else {
            let statuses = ["rejected", "cancelled", "expired"];
            let path = format!("/api/tasks/{task}");
            let ended = world.app.eventually(&path, |t| statuses.iter().any(|s| t["status"] == *s)).await;
            let expected = if state == "refused" { &statuses[..1] } else { &statuses[1..] };
            assert!(expected.iter().any(|s| ended["status"] == *s), "{state} {ended}");
            assert_eq!(decided, usize::from(state == "refused"));
        }
    }
}

async fn the_pause_switch_holds_what_was_approved(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    world.app.put("/api/dispatch", &json!({ "paused": true })).await.expect(200);
    let task = world.asked().await;
    assert_eq!(world.approve(&world.bob, &task).await.expect(200)["state"], "approved");
    assert_eq!(world.status(&task).await, "pending");
    assert!(world.host.try_next().await.is_none());
    world.app.put("/api/dispatch", &json!({ "paused": false })).await.expect(200);
    world.host.run_next(exited(0, "", "")).await;
    world.until(&task, "done").await;
}
