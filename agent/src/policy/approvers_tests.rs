//! Approvals, signed by the real `ssh-keygen`. Each refusal differs in one thing from what is allowed.

use super::*;
use serde_json::{Value, json};
use signet_common::ids::{Jti, TaskId};
use signet_common::statement::{NAMESPACE, Statement};
use signet_testkit::ssh::SshKey;

struct People {
    _dir: tempfile::TempDir,
    alice: SshKey,
    alice_too: SshKey,
    bob: SshKey,
    carol: SshKey,
    stranger: SshKey,
}

impl People {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = |name| SshKey::ed25519(dir.path(), name);
        let alice_too = SshKey::generate(dir.path(), "alice2", "ecdsa", &[]);
        let (alice, bob, carol, stranger) = (key("alice"), key("bob"), key("carol"), key("stranger"));
        Self { _dir: dir, alice, alice_too, bob, carol, stranger }
    }

    /// Two of three, and a key of carol's that is over.
    fn policy(&self) -> Policy {
        let signers = format!(
            "alice {}\nalice {}\nbob {}\ncarol valid-before=\"20300101Z\" {}\n",
            self.alice.public, self.alice_too.public, self.bob.public, self.carol.public
        );
        let text = format!("[approvers]\ncount = 2\nallowed_signers = '''\n{signers}'''\n");
        Policy::default().narrowed_by_text(&text).unwrap()
    }
}

fn agent(digit: &str) -> AgentId {
    digit.repeat(40).parse().unwrap()
}

/// A command of a task that was requested now.
fn command(task: &TaskId) -> (Command, i64) {
    let now = task.seconds().unwrap();
    let command = json!({
        "iss": "controller", "aud": [agent("a")], "iat": now, "exp": now + 600, "timeout": 30, "task_id": task,
        "jti": Jti::generate(), "command": "true",
    });
    (serde_json::from_value(command).unwrap(), now)
}

fn statement(command: &Command, requester: &str) -> Vec<u8> {
    let agents = vec![agent("a"), agent("b")];
    Statement::of_command(command, requester, command.exp, agents).unwrap().to_bytes().unwrap()
}

fn approved(command: &Command, statement: &[u8], signatures: Vec<String>) -> Command {
    let approval = signet_common::statement::Approval {
        statement: statement.to_vec(),
        approvers: Vec::new(),
        signatures,
    };
    Command { approval: Some(approval), ..command.clone() }
}

fn judged(policy: &Policy, command: &Command, now: i64) -> Result<(), String> {
    let me = agent("a");
    let here = Here { me: &me, user: "root", now, log_began: now - 60 };
    policy.allows(command, &here).map_err(|denied| denied.0)
}

#[track_caller]
fn refused(found: Result<(), String>, why: &str) {
    let found = found.expect_err(why);
    assert!(found.contains(why), "{found:?} does not say {why:?}");
}

#[test]
fn different_people_are_counted() {
    let people = People::new();
    let policy = people.policy();
    let (command, now) = command(&TaskId::generate());
    let text = statement(&command, "dora");
    let sign = |key: &SshKey| key.sign(NAMESPACE, &text, &[]);
    let (alice, alice_too, bob) = (sign(&people.alice), sign(&people.alice_too), sign(&people.bob));
    let with = |signatures: &[&String]| {
        let signatures = signatures.iter().map(|s| (*s).clone()).collect();
        judged(&policy, &approved(&command, &text, signatures), now)
    };
    with(&[&alice, &bob]).unwrap();
    with(&[&bob, &alice_too]).unwrap();
    with(&[&"rubbish".to_owned(), &alice, &alice, &sign(&people.stranger), &bob]).unwrap();

    refused(judged(&policy, &command, now), "needs 2 approvals (of alice, bob, carol), and it came without");
    refused(with(&[]), "0 count");
    refused(with(&[&alice]), "1 count (alice)");
    refused(with(&[&alice, &alice]), "1 count (alice)");
    refused(with(&[&alice, &alice_too]), "1 count (alice)");
    refused(with(&[&alice, &sign(&people.stranger)]), "is no approver's key");
    refused(with(&[&alice, &people.bob.sign("git", &text, &[])]), "namespace \"git\"");
    refused(with(&[&alice, &people.bob.sign(NAMESPACE, b"else", &[])]), "not valid for this text");
    refused(with(&vec![&alice; 65]), "more than 64");
    judged(&Policy::default(), &approved(&command, &text, vec![]), now).unwrap();
}

#[test]
fn the_requester_and_keys_out_of_their_time_do_not_count() {
    let people = People::new();
    let policy = people.policy();
    let (command, now) = command(&TaskId::generate());
    for requester in ["bob", "BOB", "bob@example.com"] {
        let text = statement(&command, requester);
        let sign = |key: &SshKey| key.sign(NAMESPACE, &text, &[]);
        let own = approved(&command, &text, vec![sign(&people.alice), sign(&people.bob)]);
        refused(judged(&policy, &own, now), "bob is who asked for it");
        let other = approved(&command, &text, vec![sign(&people.alice), sign(&people.carol)]);
        judged(&policy, &other, now).unwrap();
    }

    // The first second of 2030, in which carol's key still counts, and the next.
    let over = 1_893_456_000;
    let late = |exp: i64, now: i64| {
        let command = Command { exp, ..command.clone() };
        let text = statement(&command, "dora");
        let sign = |key: &SshKey| key.sign(NAMESPACE, &text, &[]);
        let command = approved(&command, &text, vec![sign(&people.alice), sign(&people.carol)]);
        let me = agent("a");
        let here = Here { me: &me, user: "root", now, log_began: 0 };
        policy.allows(&command, &here).map_err(|denied| denied.0)
    };
    late(over + 9, over).unwrap();
    refused(late(over + 9, over + 1), "is no approver's key");
    refused(late(over - 1, over), "its approval is over");
}

#[test]
fn what_was_approved_is_what_runs_here() {
    let people = People::new();
    let policy = people.policy();
    let (command, now) = command(&TaskId::generate());
    let text = statement(&command, "dora");
    let sign = |text: &[u8]| [&people.alice, &people.bob].map(|key| key.sign(NAMESPACE, text, &[])).to_vec();
    let signatures = sign(&text);
    let changed = |change: Value| {
        let mut value = serde_json::to_value(&command).unwrap();
        value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let command = serde_json::from_value(value).unwrap();
        approved(&command, &text, signatures.clone())
    };
    judged(&policy, &changed(json!({})), now).unwrap();
    // Each also where nobody needs to approve: a message must not contradict itself.
    for policy in [&policy, &Policy::default()] {
        for change in [
            json!({"command": "reboot"}),
            json!({"user": "root"}),
            json!({"env": {"A": "b"}}),
            json!({"timeout": 31}),
            json!({"task_id": TaskId::generate()}),
            json!({"exp": now + 601}),
            json!({"aud": [agent("a"), agent("c")]}),
        ] {
            refused(judged(policy, &changed(change), now), "differs");
        }
        let elsewhere = Statement::of_command(&command, "dora", command.exp, vec![agent("b")]).unwrap();
        let elsewhere = elsewhere.to_bytes().unwrap();
        let elsewhere = approved(&command, &elsewhere, sign(&elsewhere));
        refused(judged(policy, &elsewhere, now), "not among those");
        refused(judged(policy, &approved(&command, b"{}", sign(b"{}")), now), "can't be read");
    }
}

#[test]
fn a_task_from_before_the_log_needs_a_new_approval() {
    let people = People::new();
    let policy = people.policy();
    let (command, now) = command(&TaskId::generate());
    let with_task = |task: &str| {
        let command = Command { task_id: task.parse().unwrap(), ..command.clone() };
        let text = statement(&command, "dora");
        let signatures = [&people.alice, &people.bob].map(|key| key.sign(NAMESPACE, &text, &[])).to_vec();
        approved(&command, &text, signatures)
    };
    let mine = with_task(command.task_id.as_str());
    let at = |now: i64, log_began: i64| {
        let me = agent("a");
        policy.allows(&mine, &Here { me: &me, user: "root", now, log_began }).map_err(|denied| denied.0)
    };
    at(now, now - 1).unwrap();
    refused(at(now, now), "before this host's log began");
    assert!(policy.is_early(&mine, now - 1) && !policy.is_early(&mine, now));
    assert!(!Policy::default().is_early(&mine, now - 1));
    // A task whose id tells no time was asked for when its message was made.
    judged(&policy, &with_task("job_1"), now).unwrap();
    let old = Command { iat: now - 60, ..command.clone() };
    let text = statement(&Command { task_id: "job_1".parse().unwrap(), ..old.clone() }, "dora");
    let signatures = [&people.alice, &people.bob].map(|key| key.sign(NAMESPACE, &text, &[])).to_vec();
    let late = Command { task_id: "job_1".parse().unwrap(), ..approved(&command, &text, signatures) };
    refused(judged(&policy, &late, now), "before this host's log began");
}
