//! A new key for the fleet: hosts learn of it, work goes on, and the old key is worth what the rotation says.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use signet_agent::policy::Policy;
use signet_agent::verify::{Checked, Context, Instruction, Time, check};
use signet_common::envelope::Refusal;
use signet_common::time::Micros;
use signet_common::{Envelope, Jti, PayloadType, SigningKey};
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::support::TestApp;
use super::support::fake_agent::{FakeAgent, exited};
use super::{PATIENCE, ask_node, target_in};

on_both_pairs!(
    a_rotation_reaches_the_hosts_and_work_goes_on,
    a_revoked_key_is_believed_by_nobody,
    a_host_that_missed_steps_says_hello,
    a_host_that_is_ahead_stops_dispatch,
);

fn signing(app: &TestApp) -> SigningKey {
    app.running.app.keys.fleet().unwrap().signing().clone()
}

async fn renew(app: &TestApp, how: &str) -> Value {
    app.post(&format!("/api/keys/{how}"), &json!({})).await.expect(201)
}

/// As after a minute without a heartbeat.
async fn away(app: &TestApp) {
    app.change("UPDATE heartbeats SET received_at = 0").await;
}

async fn a_rotation_reaches_the_hosts_and_work_goes_on(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let first = app.get("/api/keys").await.expect(200);
    assert_eq!(
        (&first["version"], &first["previous"], &first["behind"]),
        (&json!(1), &Value::Null, &json!(0))
    );
    assert_eq!(first["hosts"], json!([{"version": 1, "hosts": 1}]));

    // Asked for before the rotation and sent after it: signed anew.
    away(&app).await;
    let before = ask_node(&app, "h1").await;
    let second = renew(&app, "rotate").await;
    assert_eq!((&second["version"], &second["previous"]), (&json!(2), &first["fingerprint"]));
    assert_eq!(second["behind"], 1);
    let after = ask_node(&app, "h1").await;
    agent.heartbeat().await;
    agent.next_keyring().await;
    assert_eq!(agent.keyring.as_ref().unwrap().version(), 2);
    for _ in 0..2 {
        agent.run_next(exited(0, "", "")).await;
    }
    for id in [&before, &after] {
        target_in(&app, id, "h1", "succeeded").await;
    }
    let new = signing(&app).public().id().to_string();
    let signers = app.db().all::<(String,)>(signers()).await.unwrap();
    assert!(signers.iter().all(|(keyid,)| *keyid == new), "{signers:?}");
    app.eventually("/api/keys", |keys| {
        keys["behind"] == 0 && keys["hosts"] == json!([{"version": 2, "hosts": 1}])
    })
    .await;
    let audience = [agent.id.clone()];
    assert!(believed(&agent, &command(&signing(&app), &audience)));
}

fn signers() -> signet_controller::store::Query {
    signet_controller::store::Statement::same("SELECT DISTINCT keyid FROM messages").query()
}

/// A command for these, signed with this key.
fn command(key: &SigningKey, aud: &[signet_common::AgentId]) -> Envelope {
    let now = Micros::now().seconds();
    let body = json!({
        "iss": "controller", "aud": aud, "iat": now, "exp": now + 60, "jti": Jti::generate(),
        "task_id": uuid::Uuid::new_v4().to_string(), "command": "true", "timeout": 10,
    });
    Envelope::sign(key, PayloadType::Command, &body).unwrap()
}

/// What a true agent with this one's keyring makes of a message.
fn checked(agent: &FakeAgent, message: &Envelope) -> Checked {
    let context = Context {
        me: &agent.id,
        keyring: agent.keyring.as_ref().unwrap(),
        not_before: 0,
        first_log: true,
        clock: Micros::now().seconds(),
        policy: &Policy::default(),
        own_user: "root",
        log_began: 0,
    };
    check(message, &context, &mut Time::default(), |_| false)
}

fn believed(agent: &FakeAgent, message: &Envelope) -> bool {
    match checked(agent, message) {
        Checked::Do(Instruction::Order(_)) => true,
        Checked::Refuse(Refusal::Key) => false,
        other => panic!("{other:?}"),
    }
}

async fn a_revoked_key_is_believed_by_nobody(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    let audience = [agent.id.clone()];
    let mut keys = vec![signing(&app)];
    renew(&app, "rotate").await;
    agent.next_keyring().await;
    keys.push(signing(&app));
    app.eventually("/api/keys", |keys| keys["behind"] == 0).await;
    assert!(
        keys.iter().all(|key| believed(&agent, &command(key, &audience))),
        "a rotation leaves the one before"
    );

    away(&app).await;
    let before = ask_node(&app, "h1").await;
    let revoked = renew(&app, "revoke").await;
    assert_eq!((&revoked["version"], &revoked["previous"]), (&json!(3), &Value::Null));
    // A keyring that skips a version is worth nothing, whoever hands it over.
    let fleet = app.running.app.keys.fleet().unwrap();
    let first =
        signet_common::keyring::Keyring::trust_first(fleet.link(1).unwrap(), keys[0].public().id()).unwrap();
    assert!(first.advance(fleet.link(3).unwrap()).is_err());
    assert!(first.advance_all(&fleet.chain()[2..]).is_err());
    assert_eq!(first.advance_all(fleet.chain()).unwrap().version(), 3);

    agent.heartbeat().await;
    agent.next_keyring().await;
    assert!(keys.iter().all(|key| !believed(&agent, &command(key, &audience))));
    assert!(believed(&agent, &command(&signing(&app), &audience)));
    // What was asked for before comes with the new key's signature.
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &before, "h1", "succeeded").await;
}

async fn a_host_that_missed_steps_says_hello(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "h1", "web").await;
    away(&app).await;
    for how in ["rotate", "revoke"] {
        renew(&app, how).await;
    }
    let id = ask_node(&app, "h1").await;
    agent.heartbeat().await;
    // Signed with the key that it knows, although that one is revoked since.
    assert_eq!(agent.next_resume().await.log_id, None);
    assert_eq!(agent.keyring.as_ref().unwrap().version(), 1);
    agent.hello(&app).await;
    assert_eq!(agent.keyring.as_ref().unwrap().version(), 3);
    agent.heartbeat().await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h1", "succeeded").await;
}

/// As after a restore of an old database without the copy of the keys.
async fn a_host_that_is_ahead_stops_dispatch(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut ahead = FakeAgent::enrol(&app, "h1", "web").await;
    let mut other = FakeAgent::enrol(&app, "h2", "web").await;
    ahead.heartbeat_with(|heartbeat| heartbeat.keyring = 7).await;
    let held = app.eventually("/api/dispatch", |dispatch| dispatch["held"] != Value::Null).await;
    assert_eq!(held["paused"], false);
    let why = held["held"].as_str().unwrap();
    assert!(why.contains("version 1") && why.contains("h1 holds 7"), "{why}");
    let id = ask_node(&app, "h2").await;
    let task = app.get(&format!("/api/tasks/{id}")).await.expect(200);
    assert_eq!(task["targets"][0]["state"], "waiting", "{task}");
    assert_eq!(task["paused"], why);
    let refused = app.post("/api/keys/rotate", &json!({})).await;
    assert_eq!(refused.status.as_u16(), 409, "{}", refused.text);
    // No switch lets it go on.
    let switched = app.put("/api/dispatch", &json!({"paused": false})).await.expect(200);
    assert_eq!(switched["held"], why);
    // The fleet's own keys again.
    ahead.heartbeat().await;
    app.eventually("/api/dispatch", |dispatch| dispatch["held"] == Value::Null).await;
    other.heartbeat().await;
    other.run_next(exited(0, "", "")).await;
    target_in(&app, &id, "h2", "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_what_one_rotates_the_other_signs_with() {
    let first = TestApp::start(Pair::MariadbRabbitmq).await;
    let second = first.beside().await;
    let mut agent = FakeAgent::enrol(&first, "h1", "web").await;
    for version in 2..6 {
        let (one, other) = if version % 2 == 0 { (&first, &second) } else { (&second, &first) };
        renew(one, "revoke").await;
        let id = ask_node(other, "h1").await;
        assert_eq!(signing(other).public(), signing(one).public(), "read in the transaction that signed");
        agent.next_keyring().await;
        assert_eq!(agent.keyring.as_ref().unwrap().version(), version);
        agent.run_next(exited(0, "", "")).await;
        target_in(one, &id, "h1", "succeeded").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_rotations_that_meet_make_one_chain() {
    let first = TestApp::start(Pair::MariadbRabbitmq).await;
    let second = first.beside().await;
    let body = json!({});
    let answers = tokio::join!(
        first.post("/api/keys/rotate", &body),
        second.post("/api/keys/rotate", &body),
        first.post("/api/keys/revoke", &body),
    );
    let mut counts: BTreeMap<u16, i64> = BTreeMap::new();
    for answer in [answers.0, answers.1, answers.2] {
        *counts.entry(answer.status.as_u16()).or_default() += 1;
    }
    assert!(counts.keys().all(|status| [201, 409].contains(status)), "{counts:?}");
    let made = counts[&201];
    assert_eq!(first.number("SELECT COUNT(*) FROM keyrings").await, made + 1);
    eventually(PATIENCE, "both to hold the newest", async || {
        let version = |app: &TestApp| app.running.app.keys.fleet().unwrap().version();
        (version(&first) == version(&second) && i64::try_from(version(&first)) == Ok(made + 1)).then_some(())
    })
    .await;
}
