//! What does not count as an approval, each beside a twin that does.

use serde_json::json;
use signet_common::statement::NAMESPACE;
use signet_testkit::{Pair, on_both_pairs};

use super::{SshKey, World, approve, statement};
use crate::support::TestApp;
use crate::support::fake_agent::exited;
use crate::visitor::Visitor;

on_both_pairs!(
    who_may_not_approve,
    an_approval_is_for_one_statement,
    a_signature_is_by_the_approvers_own_key,
    who_may_no_more_does_not_count,
    a_key_that_is_gone_does_not_count,
    a_token_registers_no_key,
);

async fn who_may_not_approve(pair: Pair) {
    let mut world = World::new(pair, 1).await;
    let task = world.asked().await;
    let viewer = Visitor::new(&world.app, "vera", "viewer").await;
    assert_eq!(world.approve(&viewer, &task).await.status, 403);
    assert_eq!(world.approve(&world.alice, &task).await.status, 403, "self-given");
    let made =
        world.alice.post(&world.app, "/api/tokens", &json!({ "name": "ci", "role": "operator" })).await;
    let own = Visitor {
        token: made.expect(201)["token"].as_str().unwrap().to_owned(),
        ..world.alice.again(&world.app).await
    };
    assert_eq!(world.approve(&own, &task).await.status, 403, "self-given through a token");
    let promoted = json!({ "role": "admin" });
    world.app.put(&world.alice.own(), &promoted).await.expect(200);
    assert_eq!(world.approve(&world.alice, &task).await.status, 403, "self-given as an admin");
    let limited = Visitor::new(&world.app, "will", "operator").await;
    world.app.put(&limited.own(), &json!({ "host_groups": ["web"] })).await.expect(200);
    assert_eq!(world.approve(&limited, &task).await.status, 403, "hosts of another group");
    let refused = limited.post(&world.app, &format!("/api/approvals/{task}/refuse"), &json!({})).await;
    assert_eq!(refused.status, 403);
    let shown = limited.get(&world.app, &format!("/api/approvals/{task}")).await.expect(200);
    assert!(shown.get("statement").is_none());
    world.app.put(&world.carol.own(), &json!({ "is_active": false })).await.expect(200);
    assert_eq!(world.approve(&world.carol, &task).await.status, 401, "disabled");
    assert_eq!(world.status(&task).await, "awaiting_approval");
    assert!(world.host.try_next().await.is_none());
    // The twin.
    world.app.put(&limited.own(), &json!({ "host_groups": ["web", "prod"] })).await.expect(200);
    assert_eq!(world.approve(&limited, &task).await.expect(200)["state"], "approved");
    world.host.run_next(exited(0, "", "")).await;
}

async fn an_approval_is_for_one_statement(pair: Pair) {
    let world = World::new(pair, 1).await;
    let (one, other) = (world.asked().await, world.asked().await);
    let (digest, bytes) = statement(&world.app, &world.bob, &one).await;
    let (other_digest, _) = statement(&world.app, &world.bob, &other).await;
    assert_ne!(digest, other_digest, "each task's own");
    let path = format!("/api/approvals/{other}/approve");
    for wrong in [digest.as_str(), "", &"0".repeat(64), &other_digest.to_uppercase()] {
        let answer = world.bob.post(&world.app, &path, &json!({ "digest": wrong })).await;
        assert_eq!(answer.status, 409, "{wrong}");
    }
    assert_eq!(world.bob.post(&world.app, &path, &json!({})).await.status, 400);
    // A true signature over another task's statement.
    let key = SshKey::new();
    key.register(&world.app, &world.bob).await;
    let replayed = approve(&world.app, &world.bob, &other, Some(&key.sign(NAMESPACE, &bytes))).await;
    assert_eq!(replayed.status, 400);
    assert_eq!(world.state(&other).await, "awaiting");
    let twin = approve(&world.app, &world.bob, &one, Some(&key.sign(NAMESPACE, &bytes))).await.expect(200);
    assert_eq!((&twin["state"], &twin["approvals"][0]["signed"]), (&json!("approved"), &json!(true)));
    let nothing = "00000000-0000-7000-8000-000000000000";
    let path = format!("/api/approvals/{nothing}/approve");
    assert_eq!(world.bob.post(&world.app, &path, &json!({ "digest": "" })).await.status, 404);
}

async fn a_signature_is_by_the_approvers_own_key(pair: Pair) {
    let world = World::new(pair, 1).await;
    let task = world.asked().await;
    let (_, bytes) = statement(&world.app, &world.bob, &task).await;
    let (own, carols, nobodys) = (SshKey::new(), SshKey::new(), SshKey::new());
    carols.register(&world.app, &world.carol).await;
    let id = own.register(&world.app, &world.bob).await;
    let taken =
        world.carol.post(&world.app, "/api/approver-keys", &json!({ "public_key": own.public() })).await;
    assert_eq!(taken.status, 409, "one key is one person");
    for bad in ["", "ssh-ed25519", "ssh-dss AAAA x", "-----BEGIN OPENSSH PRIVATE KEY-----"] {
        let answer = world.bob.post(&world.app, "/api/approver-keys", &json!({ "public_key": bad })).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let mut altered = bytes.clone();
    altered[10] ^= 1;
    for (why, signature) in [
        ("another's", carols.sign(NAMESPACE, &bytes)),
        ("nobody's", nobodys.sign(NAMESPACE, &bytes)),
        ("for something else", own.sign("git", &bytes)),
        ("over something else", own.sign(NAMESPACE, &altered)),
        ("none", "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----".into()),
        ("empty", String::new()),
    ] {
        let answer = approve(&world.app, &world.bob, &task, Some(&signature)).await;
        assert_eq!(answer.status, 400, "{why}: {}", answer.text);
    }
    assert_eq!(world.app.get(&format!("/api/approvals/{task}")).await.expect(200)["approvals"], json!([]));
    // Another's key is not there to be deleted, and one sees only one's own.
    let path = format!("/api/approver-keys/{id}");
    let delete = |who: &Visitor| TestApp::send(who.request(&world.app, reqwest::Method::DELETE, &path));
    assert_eq!(delete(&world.carol).await.status, 404);
    let listed = world.bob.get(&world.app, "/api/approver-keys").await.expect(200);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["comment"]), (1, &json!("a comment")));
    assert_eq!(world.app.get("/api/approver-keys").await.expect(200).as_array().unwrap().len(), 2);
    let twin = approve(&world.app, &world.bob, &task, Some(&own.sign(NAMESPACE, &bytes))).await;
    assert_eq!(twin.expect(200)["state"], "approved");
}

async fn who_may_no_more_does_not_count(pair: Pair) {
    let mut world = World::new(pair, 2).await;
    let dave = Visitor::new(&world.app, "dave", "operator").await;
    for change in
        [json!({ "is_active": false }), json!({ "role": "viewer" }), json!({ "host_groups": ["web"] })]
    {
        let task = world.asked().await;
        world.approve(&world.bob, &task).await.expect(200);
        world.app.put(&world.bob.own(), &change).await.expect(200);
        let still = world.approve(&world.carol, &task).await.expect(200);
        assert_eq!(still["state"], "awaiting", "{change}");
        assert!(world.host.try_next().await.is_none());
        assert_eq!(world.approve(&dave, &task).await.expect(200)["state"], "approved");
        world.host.run_next(exited(0, "", "")).await;
        let back = json!({ "is_active": true, "role": "operator", "host_groups": ["prod"] });
        world.app.put(&world.bob.own(), &back).await.expect(200);
        world.bob = world.bob.again(&world.app).await;
    }
    let task = world.asked().await;
    world.approve(&world.bob, &task).await.expect(200);
    assert_eq!(world.app.delete(&world.bob.own()).await.status, 200);
    assert_eq!(world.approve(&world.carol, &task).await.expect(200)["state"], "awaiting", "deleted");
    // Another account of the same name is another person, and has not agreed.
    let bob = Visitor::new(&world.app, "bob", "operator").await;
    assert_eq!(world.state(&task).await, "awaiting");
    assert_eq!(world.approve(&bob, &task).await.expect(200)["state"], "approved");
}

async fn a_key_that_is_gone_does_not_count(pair: Pair) {
    let world = World::new(pair, 2).await;
    let task = world.asked().await;
    let key = SshKey::new();
    let id = key.register(&world.app, &world.bob).await;
    let (_, bytes) = statement(&world.app, &world.bob, &task).await;
    approve(&world.app, &world.bob, &task, Some(&key.sign(NAMESPACE, &bytes))).await.expect(200);
    let path = format!("/api/approver-keys/{id}");
    let gone = TestApp::send(world.bob.request(&world.app, reqwest::Method::DELETE, &path)).await;
    assert_eq!(gone.status, 204);
    assert_eq!(world.approve(&world.carol, &task).await.expect(200)["state"], "awaiting");
    assert_eq!(
        world.approve(&world.bob, &task).await.expect(200)["state"],
        "approved",
        "said again without it"
    );
}

async fn a_token_registers_no_key(pair: Pair) {
    let world = World::new(pair, 1).await;
    let made = world.bob.post(&world.app, "/api/tokens", &json!({ "name": "ci", "role": "operator" })).await;
    let token = Visitor {
        token: made.expect(201)["token"].as_str().unwrap().to_owned(),
        ..world.bob.again(&world.app).await
    };
    let key = SshKey::new();
    let body = json!({ "public_key": key.public() });
    assert_eq!(token.post(&world.app, "/api/approver-keys", &body).await.status, 403);
    // The twin: bob himself.
    let id = key.register(&world.app, &world.bob).await;
    let delete = token.request(&world.app, reqwest::Method::DELETE, &format!("/api/approver-keys/{id}"));
    assert_eq!(TestApp::send(delete).await.status, 403);
}
