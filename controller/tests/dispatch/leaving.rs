//! Agents that leave by their own word, and words that are not theirs.

use reqwest::Method;
use serde_json::json;
use signet_common::messages::{Leave, Standing};
use signet_common::time::Micros;
use signet_common::{Envelope, Jti, PayloadType, SigningKey};
use signet_testkit::{Pair, on_both_pairs};

use super::support::fake_agent::FakeAgent;
use super::support::{Answer, TestApp};
use super::{ask_node, server, target_in};

on_both_pairs!(
    who_leaves_is_revoked_and_its_work_ends,
    nobody_is_made_to_leave_by_another,
    a_leave_counts_once,
);

async fn draft(app: &TestApp, agent: &FakeAgent) -> Leave {
    let nonce = TestApp::send(app.anonymous(Method::GET, "/api/agents/nonce")).await.expect(200);
    Leave {
        iss: agent.id.to_string(),
        aud: vec!["controller".into()],
        iat: Micros::now().seconds(),
        jti: Jti::generate(),
        public_key: agent.key.public().to_pem(),
        controller_nonce: nonce["nonce"].as_str().unwrap().to_owned(),
    }
}

async fn say(app: &TestApp, key: &SigningKey, kind: PayloadType, leave: &Leave) -> Answer {
    let signed = Envelope::sign(key, kind, leave).unwrap().to_dsse();
    TestApp::send(app.anonymous(Method::POST, "/api/agents/leave").json(&signed)).await
}

async fn who_leaves_is_revoked_and_its_work_ends(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let task = ask_node(&app, "h1").await;
    let leave = draft(&app, &agent).await;
    assert_eq!(say(&app, &agent.key, PayloadType::Leave, &leave).await.status, 204);
    let known = app.get("/api/agents").await.expect(200);
    assert_eq!(
        (&known[0]["agent_id"], &known[0]["standing"]),
        (&json!(agent.id.as_str()), &json!("revoked"))
    );
    assert_eq!(server(&app, "h1").await["agent_id"], json!(null));
    target_in(&app, &task, "h1", "lost").await;
    let refused = agent.say(&app, &agent.draft(&app).await).await.expect(403);
    assert!(refused["detail"].as_str().unwrap().contains("revoked"), "{refused}");
    // The answer may have been lost.
    let again = draft(&app, &agent).await;
    assert_eq!(say(&app, &agent.key, PayloadType::Leave, &again).await.status, 204);
    // The name is free for a new key, and the old one's word does not touch that.
    let mut next = FakeAgent::new(&app, "h1", "web").await;
    assert_eq!(next.hello(&app).await.standing, Standing::Accepted);
    let late = draft(&app, &agent).await;
    assert_eq!(say(&app, &agent.key, PayloadType::Leave, &late).await.status, 204);
    assert_eq!(server(&app, "h1").await["agent_id"], json!(next.id.as_str()));
    agent.leave();
}

async fn nobody_is_made_to_leave_by_another(pair: Pair) {
    let app = TestApp::start(pair).await;
    let victim = FakeAgent::enrol(&app, "h1", "web").await;
    let other = FakeAgent::enrol(&app, "h2", "web").await;
    let leave = draft(&app, &victim).await;
    // Signed with another key, which the message does not bring or brings.
    assert_eq!(say(&app, &other.key, PayloadType::Leave, &leave).await.status, 401);
    let brought = Leave { public_key: other.key.public().to_pem(), ..draft(&app, &victim).await };
    assert_eq!(say(&app, &other.key, PayloadType::Leave, &brought).await.status, 401);
    // Something else that the victim signed.
    assert_eq!(say(&app, &victim.key, PayloadType::Hello, &leave).await.status, 401);
    let elsewhere = Leave { aud: vec![other.id.to_string()], ..draft(&app, &victim).await };
    assert_eq!(say(&app, &victim.key, PayloadType::Leave, &elsewhere).await.status, 401);
    let unknown = FakeAgent::new(&app, "h3", "web").await;
    assert_eq!(say(&app, &unknown.key, PayloadType::Leave, &draft(&app, &unknown).await).await.status, 404);
    assert_eq!(server(&app, "h1").await["agent_id"], json!(victim.id.as_str()));
    assert_eq!(say(&app, &victim.key, PayloadType::Leave, &leave).await.status, 204);
    assert_eq!(server(&app, "h1").await["agent_id"], json!(null));
}

async fn a_leave_counts_once(pair: Pair) {
    let app = TestApp::start(pair).await;
    let agent = FakeAgent::enrol(&app, "h1", "web").await;
    let leave = draft(&app, &agent).await;
    assert_eq!(say(&app, &agent.key, PayloadType::Leave, &leave).await.status, 204);
    assert_eq!(say(&app, &agent.key, PayloadType::Leave, &leave).await.status, 401);
    let invented = Leave { controller_nonce: "0".repeat(96), ..draft(&app, &agent).await };
    assert_eq!(say(&app, &agent.key, PayloadType::Leave, &invented).await.status, 401);
}
