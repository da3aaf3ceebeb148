//! A stolen controller key against a host that lists approvers: the controller here signs whatever it likes. Each
//! attack has a twin that succeeds.

use std::fs;

use serde_json::{Value, json};
use signet_agent::AgentConfig;
use signet_agent::policy::Policy;
use signet_common::ids::{AgentId, Jti, TaskId};
use signet_common::messages::{Command, Event, Outcome};
use signet_common::statement::{Approval, NAMESPACE, Statement};
use signet_testkit::eventually;
use signet_testkit::ssh::SshKey;

use crate::controller::{Controller, PATIENCE, State, command, now};
use crate::support::{Agent, config};

/// A host where two of alice, bob and carol must have approved what runs.
struct Host {
    dir: tempfile::TempDir,
    controller: Controller,
    agent: Agent,
    alice: SshKey,
    alice_too: SshKey,
    bob: SshKey,
    stranger: SshKey,
}

/// A command that is not sent yet, and what people sign for it.
struct Asked {
    payload: Value,
    statement: Vec<u8>,
}

impl Asked {
    fn signed(&self, keys: &[&SshKey]) -> Vec<String> {
        keys.iter().map(|key| key.sign(NAMESPACE, &self.statement, &[])).collect()
    }
}

impl Host {
    async fn new() -> Self {
        let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
        let key = |name| SshKey::ed25519(dir.path(), name);
        let (alice, bob, carol, stranger) = (key("alice"), key("bob"), key("carol"), key("stranger"));
        let alice_too = SshKey::generate(dir.path(), "alice2", "rsa", &["-b", "2048"]);
        let signers = [("alice", &alice), ("alice", &alice_too), ("bob", &bob), ("carol", &carol)];
        let lines: String = signers.iter().map(|(name, key)| format!("{name} {}\n", key.public)).collect();
        let policy = format!("[approvers]\ncount = 2\nallowed_signers = '''\n{lines}'''\n");
        fs::write(dir.path().join("policy.toml"), policy).unwrap();
        let agent = Self::begin(&controller, &dir).await;
        Self { dir, controller, agent, alice, alice_too, bob, stranger }
    }

    async fn begin(controller: &Controller, dir: &tempfile::TempDir) -> Agent {
        let policy = Policy::default().find(Some(&dir.path().join("policy.toml")), dir.path()).unwrap();
        let config = AgentConfig { policy, ..config(controller, &dir.path().join("data")) };
        let agent = Agent::start(controller, config).await;
        // What was asked for in the second in which a log began may have been used before it.
        let began = now();
        eventually(PATIENCE, "the next second", async || (now() > began).then_some(())).await;
        agent
    }

    async fn again(self, between: impl FnOnce(&std::path::Path)) -> Self {
        let Self { dir, controller, agent, alice, alice_too, bob, stranger } = self;
        agent.stop().await;
        between(&dir.path().join("data"));
        let agent = Self::begin(&controller, &dir).await;
        Self { dir, controller, agent, alice, alice_too, bob, stranger }
    }

    fn ask(&self, requester: &str, change: Value) -> Asked {
        self.ask_for(requester, std::slice::from_ref(&self.agent.id), change)
    }

    fn ask_for(&self, requester: &str, agents: &[AgentId], change: Value) -> Asked {
        let (_, mut payload) = command(&self.agent.id, json!({"task_id": TaskId::generate()}));
        payload.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let command: Command = serde_json::from_value(payload.clone()).unwrap();
        let statement = Statement::of_command(&command, requester, command.exp, agents.to_vec()).unwrap();
        Asked { statement: statement.to_bytes().unwrap(), payload }
    }

    /// Sends it with these signatures in a message of its own; `change` overrides what it says.
    async fn send(&self, asked: &Asked, signatures: Vec<String>, change: Value) -> Jti {
        let approval = Approval { statement: asked.statement.clone(), signatures };
        let mut payload = asked.payload.clone();
        payload["approval"] = serde_json::to_value(approval).unwrap();
        payload.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        (payload["jti"], payload["iat"]) = (json!(Jti::generate()), json!(now()));
        self.controller.command(&self.agent.id, payload.clone()).await;
        serde_json::from_value(payload["jti"].clone()).unwrap()
    }

    async fn runs(&self, asked: &Asked) {
        let jti = self.send(asked, asked.signed(&[&self.alice, &self.bob]), json!({})).await;
        assert_eq!(self.controller.result(&jti).await.outcome, Outcome::Succeeded);
    }

    async fn refuses(&self, jti: &Jti, why: &str) {
        let found = self.controller.wait("an answer", |state| {
            state.events.iter().find_map(|event| match event {
                Event::Rejected { jti: of, reason, detail, .. } if of == jti => {
                    Some(format!("{reason:?}: {detail}"))
                }
                Event::Started { jti: of, .. } if of == jti => Some("it was started".to_owned()),
                _ => None,
            })
        });
        let found = found.await;
        assert!(found.starts_with("Policy: ") && found.contains(why), "{found:?} does not say {why:?}");
    }
}

#[tokio::test]
async fn two_different_people_must_have_signed() {
    let host = Host::new().await;
    let bare = host.controller.command(&host.agent.id, json!({"task_id": TaskId::generate()})).await;
    host.refuses(&bare, "needs 2 approvals").await;

    let asked = host.ask("dora", json!({}));
    let (alice, alice_too, bob) = (&host.alice, &host.alice_too, &host.bob);
    for (keys, why) in [
        (vec![], "0 count"),
        (vec![alice], "1 count"),
        (vec![alice, alice], "1 count"),
        (vec![alice, alice_too], "1 count"),
        (vec![alice, &host.stranger], "is no approver's key"),
    ] {
        let jti = host.send(&asked, asked.signed(&keys), json!({})).await;
        host.refuses(&jti, why).await;
    }
    let elsewhere =
        vec![alice.sign(NAMESPACE, &asked.statement, &[]), bob.sign("git", &asked.statement, &[])];
    let jti = host.send(&asked, elsewhere, json!({})).await;
    host.refuses(&jti, "namespace").await;

    let own = host.ask("alice", json!({}));
    let jti = host.send(&own, own.signed(&[alice, bob]), json!({})).await;
    host.refuses(&jti, "alice is who asked for it").await;

    // None of these used the approval up.
    host.runs(&asked).await;
    host.agent.stop().await;
}

#[tokio::test]
async fn nothing_but_what_was_approved_runs() {
    let host = Host::new().await;
    let asked = host.ask("dora", json!({"timeout": 20}));
    let other = host.ask("dora", json!({"timeout": 20}));
    let good = asked.signed(&[&host.alice, &host.bob]);
    for (change, why) in [
        (json!({"command": "reboot"}), "differs from what was approved: command"),
        (json!({"aud": [host.agent.id, "c".repeat(40)]}), "names a host that was not approved"),
        (json!({"env": {"LD_PRELOAD": "/tmp/x"}}), "differs from what was approved: env"),
        (json!({"task_id": other.payload["task_id"]}), "differs from what was approved: task_id"),
        (json!({"exp": now() + 3_600}), "exp is later than not_after"),
    ] {
        let jti = host.send(&asked, good.clone(), change).await;
        host.refuses(&jti, why).await;
    }
    // Another task's signatures, and a statement for other hosts.
    let jti = host.send(&other, good.clone(), json!({})).await;
    host.refuses(&jti, "not valid for this text").await;
    let elsewhere = host.ask_for("dora", &["c".repeat(40).parse().unwrap()], json!({}));
    let jti = host.send(&elsewhere, elsewhere.signed(&[&host.alice, &host.bob]), json!({})).await;
    host.refuses(&jti, "this host is not among those").await;
    host.runs(&asked).await;

    // An approval that is over can't be given a message that is not.
    let over = host.ask("dora", json!({"exp": now() - 1}));
    let jti = host.send(&over, over.signed(&[&host.alice, &host.bob]), json!({"exp": now() + 60})).await;
    host.refuses(&jti, "exp is later than not_after").await;
    host.agent.stop().await;
}

#[tokio::test]
async fn one_statement_starts_one_thing() {
    let host = Host::new().await;
    let used = "this approval was used before";
    let asked = host.ask("dora", json!({}));
    let keys = [&host.alice, &host.bob];
    let jti = host.send(&asked, asked.signed(&keys), json!({})).await;
    host.controller.result(&jti).await;
    // The same message again is only counted.
    let same = host.controller.sign(signet_common::PayloadType::Command, &{
        let approval = Approval { statement: asked.statement.clone(), signatures: asked.signed(&keys) };
        let mut payload = asked.payload.clone();
        (payload["jti"], payload["approval"]) = (json!(jti), serde_json::to_value(approval).unwrap());
        payload
    });
    host.controller.publish(&host.agent.id, same).await;
    let jti = host.send(&asked, asked.signed(&keys), json!({})).await;
    host.refuses(&jti, used).await;

    // Also when it was cancelled while it ran, and after a restart.
    let slow = host.ask("dora", json!({"command": "sleep 60"}));
    let first = host.send(&slow, slow.signed(&keys), json!({})).await;
    host.controller.started(&first).await;
    host.controller.cancel(&host.agent.id, &first).await;
    assert_eq!(host.controller.result(&first).await.outcome, Outcome::Cancelled);
    let second = host.send(&slow, slow.signed(&keys), json!({})).await;
    host.refuses(&second, used).await;

    let host = host.again(|_| {}).await;
    let keys = [&host.alice, &host.bob];
    for asked in [&asked, &slow] {
        let jti = host.send(asked, asked.signed(&keys), json!({})).await;
        host.refuses(&jti, used).await;
    }

    // Nor when the controller has the host begin a new log, and the host starts again.
    host.controller.state().new_log = true;
    let hellos = host.controller.state().hellos.len();
    host.controller.resume(&host.agent.id, None).await;
    let new_log = |state: &mut State| state.hellos[hellos..].iter().any(|h| h.new_log).then_some(());
    host.controller.wait("the new log's hello", new_log).await;
    let host = host.again(|_| {}).await;
    let keys = [&host.alice, &host.bob];
    let jti = host.send(&slow, slow.signed(&keys), json!({})).await;
    host.refuses(&jti, "before this host's log began").await;
    host.runs(&host.ask("dora", json!({}))).await;

    // Nor when the journal that knew is gone: what was asked for before is approved anew.
    let host = host.again(|data| fs::remove_dir_all(data.join("journal")).unwrap()).await;
    let keys = [&host.alice, &host.bob];
    let jti = host.send(&asked, asked.signed(&keys), json!({})).await;
    host.refuses(&jti, "before this host's log began").await;
    host.runs(&host.ask("dora", json!({}))).await;
    host.agent.stop().await;
}
