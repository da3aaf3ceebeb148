//! Approvals that are given, and what they let go.

use serde_json::json;
use signet_common::statement::{NAMESPACE, Statement, StatementDigest};
use signet_common::{PayloadType, sshsig};
use signet_testkit::{Pair, on_both_pairs};

use super::{SshKey, World, agent, approve, on, statement};
use crate::support::TestApp;
use crate::support::fake_agent::exited;
use crate::visitor::Visitor;

on_both_pairs!(
    what_others_approve_runs,
    a_host_that_joins_later_is_not_meant,
    batches_begin_when_it_is_approved,
    a_host_that_is_away_gets_it_when_it_comes,
    secrets_are_sealed_and_shown_to_approvers_alone,
    a_request_that_comes_again_is_the_held_task,
    who_approves_through_what,
);

async fn what_others_approve_runs(pair: Pair) {
    let mut world = World::new(pair, 2).await;
    let key = SshKey::new();
    key.register(&world.app, &world.carol).await;
    let task = world.asked().await;
    assert_eq!(world.status(&task).await, "awaiting_approval");
    let waiting = world.bob.get(&world.app, "/api/approvals?state=awaiting").await.expect(200);
    assert_eq!((&waiting[0]["task_id"], &waiting[0]["needed"]), (&json!(task), &json!(2)));
    assert_eq!(waiting[0]["requester"], "alice");

    let first = world.approve(&world.bob, &task).await.expect(200);
    assert_eq!((&first["state"], &first["approvals"][0]["name"]), (&json!("awaiting"), &json!("bob")));
    // Once more is still one.
    let again = world.approve(&world.bob, &task).await.expect(200);
    assert_eq!((&again["state"], again["approvals"].as_array().unwrap().len()), (&json!("awaiting"), 1));
    assert_eq!(world.app.number("SELECT COUNT(*) FROM messages").await, 0, "nothing that could be sent");

    let (digest, bytes) = statement(&world.app, &world.carol, &task).await;
    assert_eq!(StatementDigest::of(&bytes).as_str(), digest);
    let signature = key.sign(NAMESPACE, &bytes);
    let last = approve(&world.app, &world.carol, &task, Some(&signature)).await.expect(200);
    assert_eq!((&last["state"], &last["decided_by"]), (&json!("approved"), &json!("carol")));

    let command = world.host.run_next(exited(0, "done\n", "")).await;
    let approval = command.approval.as_ref().unwrap();
    assert_eq!(approval.statement, bytes, "the exact bytes");
    let agreed = Statement::parse(&approval.statement).unwrap();
    agreed.covers(&command, &world.host.id).unwrap();
    assert_eq!((agreed.requester.as_str(), agreed.task_id.to_string()), ("alice", task.clone()));
    assert!(command.exp <= agreed.not_after && command.exp <= command.iat + 600);
    let [signature] = approval.signatures.as_slice() else { panic!("{:?}", approval.signatures) };
    let signer = sshsig::verify(signature, NAMESPACE, &approval.statement).unwrap();
    assert_eq!(signer, key.public().parse().unwrap());
    world.until(&task, "done").await;

    // Who gave one may say so again; who did not comes too late.
    world.approve(&world.bob, &task).await.expect(200);
    let dave = Visitor::new(&world.app, "dave", "admin").await;
    assert_eq!(world.approve(&dave, &task).await.status, 409);
    let refused = dave.post(&world.app, &format!("/api/approvals/{task}/refuse"), &json!({})).await;
    assert_eq!(refused.status, 409);
    assert_eq!(world.status(&task).await, "done");
}

async fn a_host_that_joins_later_is_not_meant(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let task = world.asked().await;
    let mut late = agent(&world.app, "prod2", "prod").await;
    world.approve(&world.bob, &task).await.expect(200);
    let command = world.host.run_next(exited(0, "", "")).await;
    assert_eq!(command.aud, [world.host.id.clone()]);
    let detail = world.until(&task, "done").await;
    assert_eq!(detail["targets"].as_array().unwrap().len(), 1);
    // What is asked for from now on is for both.
    let next = world.asked().await;
    world.approve(&world.bob, &next).await.expect(200);
    assert_eq!(late.run_next(exited(0, "", "")).await.aud.len(), 2);
}

async fn batches_begin_when_it_is_approved(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let mut second = agent(&world.app, "prod2", "prod").await;
    let task = world.asked_with(json!({ "batch": 1 })).await;
    world.approve(&world.bob, &task).await.expect(200);
    let first = world.host.next_command().await;
    assert!(second.try_next().await.is_none(), "the second batch waits for the first");
    world.host.accepted(&first.jti).await;
    world.host.started(&first.jti).await;
    world.host.result(&first.jti, exited(0, "", "")).await;
    let then = second.run_next(exited(0, "", "")).await;
    assert_eq!(then.approval.unwrap().statement, first.approval.unwrap().statement);
    assert_ne!(then.jti, first.jti);
    world.until(&task, "done").await;
}

async fn a_host_that_is_away_gets_it_when_it_comes(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    world.host.heartbeat_with(|h| h.stopping = true).await;
    world.app.eventually("/api/servers/prod1", |server| server["status"] == "offline").await;
    let task = world.asked().await;
    world.approve(&world.bob, &task).await.expect(200);
    assert_eq!(world.status(&task).await, "sent", "signed, and due when the host is there");
    // Signed anew with the key that counts by then.
    world.app.post("/api/keys/rotate", &json!({})).await.expect(201);
    world.host.heartbeat().await;
    world.host.next_keyring().await;
    let command = loop {
        let message = world.host.next().await;
        if message.kind() == PayloadType::Command {
            break message.parse::<signet_common::messages::Command>().unwrap().into_inner();
        }
    };
    world.host.accepted(&command.jti).await;
    world.until(&task, "received").await;
}

async fn secrets_are_sealed_and_shown_to_approvers_alone(pair: Pair) {
    let world = World::new(pair, 1).await;
    let viewer = Visitor::new(&world.app, "vera", "viewer").await;
    let secret = "correct-battery-staple";
    let task = world.asked_with(json!({ "env": { "PASSWORD": secret }, "stdin": secret })).await;
    let path = format!("/api/approvals/{task}");
    let shown = viewer.get(&world.app, &path).await;
    assert!(!shown.text.contains(secret), "{}", shown.text);
    let shown = shown.expect(200);
    assert_eq!(
        (&shown["message"]["env"]["PASSWORD"], &shown["message"]["stdin"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(shown["message"]["command"], "systemctl restart app");
    assert!(shown.get("statement").is_none());
    let whole = world.bob.get(&world.app, &path).await.expect(200);
    assert_eq!(
        (&whole["message"]["env"]["PASSWORD"], &whole["message"]["stdin"]),
        (&json!(secret), &json!(secret))
    );
    assert_eq!(whole["hosts"][0]["agent_id"], world.host.id.to_string());
    let held: Vec<(Vec<u8>,)> = {
        let statement = signet_controller::store::Statement::same("SELECT sealed FROM approval_requests");
        world.app.db().all(statement.query()).await.unwrap()
    };
    world.approve(&world.bob, &task).await.expect(200);
    let after = world.bob.get(&world.app, &path).await;
    assert!(
        !after.text.contains(secret) && after.json().get("statement").is_none(),
        "nobody needs it any more"
    );
    assert!(!held[0].0.windows(secret.len()).any(|part| part == secret.as_bytes()));
}

async fn a_request_that_comes_again_is_the_held_task(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let ask = async || {
        let request = world.alice.request(&world.app, reqwest::Method::POST, "/api/commands");
        TestApp::send(request.header("idempotency-key", "once").json(&on("prod", json!({}))))
            .await
            .expect(201)
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!(first["task_id"], second["task_id"]);
    assert_eq!(
        (&first["status"], &second["status"]),
        (&json!("awaiting_approval"), &json!("awaiting_approval"))
    );
    assert_eq!(first["approval"]["digest"], second["approval"]["digest"]);
    let task = first["task_id"].as_str().unwrap().to_owned();
    world.approve(&world.bob, &task).await.expect(200);
    world.host.run_next(exited(0, "", "")).await;
    world.until(&task, "done").await;
}

/// The installation's admin token and the account `admin` are one person; an API token approves as its owner.
async fn who_approves_through_what(pair: Pair) {
    let world = World::new(pair, 2).await;
    let task = world.asked().await;
    let digest = world.app.get(&format!("/api/approvals/{task}")).await.expect(200)["digest"].clone();
    let path = format!("/api/approvals/{task}/approve");
    let made = world.bob.post(&world.app, "/api/tokens", &json!({ "name": "ci", "role": "operator" })).await;
    let ci = Visitor {
        token: made.expect(201)["token"].as_str().unwrap().to_owned(),
        ..world.bob.again(&world.app).await
    };
    world.approve(&ci, &task).await.expect(200);
    assert_eq!(world.approve(&world.bob, &task).await.expect(200)["state"], "awaiting", "the same person");
    let own = world.app.post("/api/commands", &on("prod", json!({}))).await.expect(201);
    let own = own["task_id"].as_str().unwrap();
    let body = json!({ "digest": own_digest(&world, own).await });
    assert_eq!(world.app.post(&format!("/api/approvals/{own}/approve"), &body).await.status, 403);
    let done = world.app.post(&path, &json!({ "digest": digest })).await.expect(200);
    assert_eq!((&done["state"], &done["approvals"][1]["name"]), (&json!("approved"), &json!("admin")));
}

async fn own_digest(world: &World, task: &str) -> serde_json::Value {
    world.app.get(&format!("/api/approvals/{task}")).await.expect(200)["digest"].clone()
}
