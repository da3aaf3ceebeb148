//! Bundles: a true one is believed, and a thousand that were tampered with are not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

use std::sync::LazyLock;

use serde_json::{Value, json};
use signet_common::allowed_signers::AllowedSigners;
use signet_common::bundle::{Bundle, Message, NoProof, Proof, SignedReport, Target, check};
use signet_common::chain::{ChainHash, Chained};
use signet_common::envelope::{DsseJson, PayloadType};
use signet_common::ids::{LogId, StartId};
use signet_common::keyring::Keyring;
use signet_common::messages::{Command, CommandResult, Event, Outcome, Rejection, Report};
use signet_common::statement::{Approval, NAMESPACE, Statement};
use signet_common::{Envelope, Jti, SigningKey, TaskId};
use signet_testkit::ssh::SshKey;

struct World {
    fleet: [SigningKey; 2],
    stranger: SigningKey,
    agents: Vec<SigningKey>,
    signers: AllowedSigners,
    bundle: Bundle,
    /// The same of another task, for the same hosts and by the same approvers.
    other: Bundle,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let key = || SigningKey::generate().unwrap();
    let fleet = [key(), key()];
    let agents: Vec<SigningKey> = (0..4).map(|_| key()).collect();
    let dir = tempfile::tempdir().unwrap();
    let people = ["bob", "carol"].map(|name| SshKey::ed25519(dir.path(), name));
    let line = |(name, key): (&str, &SshKey)| format!("{name} namespaces=\"{NAMESPACE}\" {}\n", key.public);
    let signers: String = ["bob", "carol"].into_iter().zip(&people).map(line).collect();
    let (first, one) = Keyring::first(&fleet[0], 1).unwrap();
    let (_, two) = first.next(&fleet[0], &fleet[1], 2, false).unwrap();
    let made = |text: &str| bundle(&fleet[1], vec![one.clone(), two.clone()], &agents, &people, text);
    let (bundle, other) = (made("systemctl restart app"), made("uptime"));
    let signers = AllowedSigners::parse(&signers, NAMESPACE).unwrap();
    World { stranger: key(), signers, bundle, other, fleet, agents }
});

fn report(agent: &SigningKey, events: Vec<Event>) -> SignedReport {
    let log_id = LogId::generate();
    let mut chain = ChainHash::genesis(&log_id);
    let mut written = Vec::new();
    for (at, event) in events.into_iter().enumerate() {
        let next = Chained::next(chain, at as u64 + 1, event).unwrap();
        chain = next.chain;
        written.push(serde_json::value::RawValue::from_string(next.text).unwrap());
    }
    let jti = Jti::generate();
    let report = Report {
        iss: agent.public().agent_id().to_string(),
        aud: vec!["controller".into()],
        iat: 1,
        jti: jti.clone(),
        start_id: StartId::generate(),
        n: 1,
        log_id,
        events: written,
    };
    let envelope = Envelope::sign(agent, PayloadType::Report, &report).unwrap().to_dsse();
    SignedReport { jti, public_key: agent.public().to_pem(), envelope }
}

fn result(jti: &Jti, outcome: Outcome, exit_code: i32) -> Event {
    let result = CommandResult {
        outcome,
        reason: None,
        exit_code: Some(exit_code),
        signal: None,
        stdout: b"done\n".to_vec(),
        stderr: Vec::new(),
        stdout_summary: Default::default(),
        stderr_summary: Default::default(),
        killed: 0,
        duration_ms: 7,
        deploy: None,
    };
    Event::Result { jti: jti.clone(), at: 5, result: Box::new(result) }
}

/// Four hosts: one succeeded, one failed, one refused, one never answered; and a server without an agent.
fn bundle(
    fleet: &SigningKey,
    keyring: Vec<DsseJson>,
    agents: &[SigningKey],
    people: &[SshKey],
    text: &str,
) -> Bundle {
    let ids: Vec<_> = agents.iter().map(|agent| agent.public().agent_id()).collect();
    let (task_id, jti) = (TaskId::generate(), Jti::generate());
    let mut command: Command = serde_json::from_value(json!({
        "iss": "controller", "aud": ids, "iat": 100, "exp": 200, "jti": jti, "task_id": task_id, "command": text,
        "timeout": 30,
    }))
    .unwrap();
    let statement = Statement::of_command(&command, "alice", 200, ids.clone()).unwrap().to_bytes().unwrap();
    let signatures = people.iter().map(|person| person.sign(NAMESPACE, &statement, &[])).collect();
    let approvers = ["bob", "carol", "dave"].map(str::to_owned).to_vec();
    command.approval = Some(Approval { statement, approvers, signatures });
    let envelope = Envelope::sign(fleet, PayloadType::Command, &command).unwrap().to_dsse();
    let refused = Event::Rejected { jti: jti.clone(), at: 5, reason: Rejection::Policy, detail: "no".into() };
    let reports = vec![
        report(
            &agents[0],
            vec![Event::Accepted { jti: jti.clone(), at: 4 }, result(&jti, Outcome::Succeeded, 0)],
        ),
        report(
            &agents[1],
            vec![result(&Jti::generate(), Outcome::Succeeded, 0), result(&jti, Outcome::Failed, 3)],
        ),
        report(&agents[2], vec![refused]),
    ];
    let target = |n: usize, state: &str, exit_code: Option<i32>| Target {
        hostname: format!("h{n}").parse().unwrap(),
        agent_id: ids.get(n).cloned(),
        jti: (n < 4).then(|| jti.clone()),
        state: state.into(),
        reason: String::new(),
        exit_code,
        report: reports.get(n).map(|report| report.jti.clone()),
    };
    let targets = vec![
        target(0, "succeeded", Some(0)),
        target(1, "failed", Some(3)),
        target(2, "rejected", None),
        target(3, "lost", None),
        target(4, "rejected", None),
    ];
    let messages = vec![Message { jti, envelope: Some(envelope) }];
    Bundle { task_id, iat: 300, keyring, messages, reports, targets }
}

fn text(bundle: &Bundle) -> String {
    serde_json::to_string(&bundle.sign(&WORLD.fleet[1]).unwrap()).unwrap()
}

fn found(text: &str) -> Result<signet_common::bundle::Proven, NoProof> {
    check(text, WORLD.fleet[0].public().id(), Some(&WORLD.signers))
}

/// A change of what is inside, with the fleet's own true signature around it.
fn inside(change: impl FnOnce(&mut Bundle)) -> String {
    let mut bundle = WORLD.bundle.clone();
    change(&mut bundle);
    assert_ne!(bundle, WORLD.bundle, "nothing was changed");
    text(&bundle)
}

/// A change of the signed command's JSON; its signature stays.
fn command(change: impl FnOnce(&mut Value)) -> String {
    inside(|bundle| {
        let signed = bundle.messages[0].envelope.as_mut().unwrap();
        let envelope = signed.envelope().unwrap();
        let mut body: Value = serde_json::from_slice(&envelope.body).unwrap();
        change(&mut body);
        let body = serde_json::to_vec(&body).unwrap();
        *signed = Envelope { body: body.into(), ..envelope }.to_dsse();
    })
}

/// As [`command`], and signed anew by the fleet: what a thief of its key could do. Approvers' signatures stay theirs.
fn command_signed_anew(change: impl FnOnce(&mut Value)) -> String {
    inside(|bundle| {
        let signed = bundle.messages[0].envelope.as_mut().unwrap();
        let mut body: Value = serde_json::from_slice(&signed.envelope().unwrap().body).unwrap();
        change(&mut body);
        *signed = Envelope::sign(&WORLD.fleet[1], PayloadType::Command, &body).unwrap().to_dsse();
    })
}

#[test]
fn a_true_bundle_is_believed() {
    let proven = found(&text(&WORLD.bundle)).unwrap();
    assert_eq!(proven.command.unwrap().command.as_deref(), Some("systemctl restart app"));
    let approved = proven.approved.unwrap();
    let who: Vec<_> = approved.signatures.iter().map(|(_, who)| who.clone().unwrap()).collect();
    assert_eq!((who, approved.without_key()), (vec!["bob".to_owned(), "carol".to_owned()], 1));
    let proofs: Vec<Proof> = proven.targets.into_iter().map(|(_, proof)| proof).collect();
    assert_eq!(proofs, [Proof::Agent, Proof::Agent, Proof::Agent, Proof::Claim, Proof::Claim]);
    // With the newest key too, and without a list of signers.
    check(&text(&WORLD.bundle), WORLD.fleet[1].public().id(), None).unwrap();
    let withheld = inside(|bundle| bundle.messages[0].envelope = None);
    assert_eq!(found(&withheld).unwrap().withheld, 1);
}

#[test]
fn a_thousand_flipped_bits_are_found() {
    let whole = text(&WORLD.bundle).into_bytes();
    let mut generator = fastrand::Rng::with_seed(7);
    for _ in 0..1_000 {
        let mut bytes = whole.clone();
        let (at, bit) = (generator.usize(..bytes.len()), generator.u8(..8));
        bytes[at] ^= 1 << bit;
        let accepted = std::str::from_utf8(&bytes).is_ok_and(|text| found(text).is_ok());
        assert!(!accepted, "bit {bit} of byte {at}");
    }
}

/// What was changed, and the bundle that came of it.
type Tampered = Vec<(String, String)>;

/// Targets that are dropped, or get one another's ends.
fn of_targets() -> Tampered {
    let mut tampered = Tampered::new();
    let mut add = |what: String, text: String| tampered.push((what, text));
    for one in 0..5_usize {
        // That a server had no agent is the controller's word alone.
        if one < 4 {
            add(format!("target {one} is dropped"), inside(|b| drop(b.targets.remove(one))));
        }
        add(format!("target {one} is there twice"), inside(|b| b.targets.push(b.targets[one].clone())));
        for two in (0..5_usize).filter(|two| *two != one) {
            let (a, b) = (WORLD.bundle.targets[one].clone(), WORLD.bundle.targets[two].clone());
            // Of who never answered the controller may say what it will: it is shown as its word alone.
            if a.report.is_some() && (&a.state, a.exit_code) != (&b.state, b.exit_code) {
                add(
                    format!("{one} gets the state of {two}"),
                    inside(|bundle| {
                        (bundle.targets[one].state, bundle.targets[one].exit_code) =
                            (b.state.clone(), b.exit_code);
                    }),
                );
            }
            if a.report.is_some() && b.report.is_some() {
                let swapped = |bundle: &mut Bundle| {
                    (bundle.targets[one].report, bundle.targets[two].report) =
                        (b.report.clone(), a.report.clone());
                };
                add(format!("{one} and {two} swap reports"), inside(swapped));
                let whole = |bundle: &mut Bundle| {
                    swapped(bundle);
                    for (to, from) in [(one, &b), (two, &a)] {
                        bundle.targets[to].state.clone_from(&from.state);
                        bundle.targets[to].exit_code = from.exit_code;
                    }
                };
                add(format!("{one} and {two} swap results"), inside(whole));
                let names = |bundle: &mut Bundle| {
                    (bundle.targets[one].agent_id, bundle.targets[two].agent_id) =
                        (b.agent_id.clone(), a.agent_id.clone());
                };
                add(format!("{one} and {two} swap agents"), inside(names));
            }
        }
    }
    tampered
}

/// Reports that are dropped, another's or forged.
fn of_reports() -> Tampered {
    let (other, agents, stranger) = (&WORLD.other, &WORLD.agents, &WORLD.stranger);
    let mut tampered = Tampered::new();
    let mut add = |what: String, text: String| tampered.push((what, text));
    for n in 0..3_usize {
        add(format!("report {n} is dropped"), inside(|b| drop(b.reports.remove(n))));
        add(format!("report {n} is another task's"), inside(|b| b.reports[n] = other.reports[n].clone()));
        let forged = |b: &mut Bundle| {
            let jti = b.messages[0].jti.clone();
            let mut report = report(stranger, vec![result(&jti, Outcome::Succeeded, 0)]);
            std::mem::swap(&mut b.reports[n].envelope, &mut report.envelope);
            b.reports[n].public_key = report.public_key;
            b.reports[n].jti = report.jti.clone();
            b.targets[n].report = Some(report.jti);
            (b.targets[n].state, b.targets[n].exit_code) = ("succeeded".into(), Some(0));
        };
        add(format!("report {n} is a stranger's"), inside(forged));
        add(
            format!("key {n} is a stranger's"),
            inside(|b| b.reports[n].public_key = stranger.public().to_pem()),
        );
        let neighbour = agents[(n + 1) % 3].public().to_pem();
        add(format!("key {n} is its neighbour's"), inside(|b| b.reports[n].public_key = neighbour));
    }
    tampered
}

/// Commands, approvals and keys that are dropped, another task's or foreign.
fn of_messages() -> Tampered {
    let (other, stranger) = (&WORLD.other, &WORLD.stranger);
    let mut tampered = Tampered::new();
    let mut add = |what: String, text: String| tampered.push((what, text));
    add("the message is dropped".into(), inside(|b| b.messages.clear()));
    add("the message is there twice".into(), inside(|b| b.messages.push(b.messages[0].clone())));
    add("the message is another task's".into(), inside(|b| b.messages = other.messages.clone()));
    add("the task is another".into(), inside(|b| b.task_id = other.task_id.clone()));
    add("the keyring lacks a version".into(), inside(|b| drop(b.keyring.remove(0))));
    let (_, foreign) = Keyring::first(stranger, 1).unwrap();
    add("the keyring is a stranger's".into(), inside(|b| b.keyring = vec![foreign]));
    let lists = ["aud", "approval.signatures", "approval.approvers"];
    for list in lists {
        let pointer = format!("/{}", list.replace('.', "/"));
        for n in 0..2 {
            add(
                format!("{list} lacks {n}"),
                command(|c| drop(c.pointer_mut(&pointer).unwrap().as_array_mut().unwrap().remove(n))),
            );
        }
    }
    let theirs: Value =
        serde_json::from_slice(&other.messages[0].envelope.as_ref().unwrap().envelope().unwrap().body)
            .unwrap();
    for field in ["approval", "command", "timeout", "jti", "task_id", "exp"] {
        let value = if field == "timeout" || field == "exp" { json!(999) } else { theirs[field].clone() };
        add(format!("{field} is another's"), command(|c| c[field] = value.clone()));
        add(format!("{field} is another's, signed by the fleet"), command_signed_anew(|c| c[field] = value));
    }
    let host = json!(stranger.public().agent_id());
    add("a host more".into(), command_signed_anew(|c| c["aud"].as_array_mut().unwrap().push(host)));
    let signatures = theirs["approval"]["signatures"].clone();
    add(
        "another task's signatures".into(),
        command_signed_anew(|c| c["approval"]["signatures"] = signatures),
    );
    add(
        "a signature twice".into(),
        command_signed_anew(|c| {
            let first = c["approval"]["signatures"][0].clone();
            c["approval"]["signatures"][1] = first;
        }),
    );
    tampered
}

#[test]
fn nothing_inside_can_be_exchanged_even_under_the_fleets_own_signature() {
    let tampered = [of_targets(), of_reports(), of_messages()].concat();
    assert!(tampered.len() >= 80, "{}", tampered.len());
    for (what, text) in tampered {
        assert!(found(&text).is_err(), "{what}");
    }
}

#[test]
fn what_no_agent_signed_is_shown_as_the_controllers_word() {
    let proofs =
        |text: &str| found(text).unwrap().targets.into_iter().map(|(_, proof)| proof).collect::<Vec<_>>();
    let invented = inside(|b| b.targets[3].state = "succeeded".into());
    assert_eq!(proofs(&invented)[3], Proof::Claim);
    let gone = inside(|b| {
        b.reports.remove(0);
        b.targets[0].report = None;
    });
    assert_eq!(proofs(&gone)[..2], [Proof::Claim, Proof::Agent]);
}

#[test]
fn a_key_that_was_replaced_signs_no_bundle() {
    let signed = WORLD.bundle.sign(&WORLD.fleet[0]).unwrap();
    assert!(matches!(found(&serde_json::to_string(&signed).unwrap()), Err(NoProof::Controller(_))));
}

#[test]
fn messages_of_one_task_are_the_same_command() {
    let mixed = inside(|b| {
        let signed = b.messages[0].envelope.clone().unwrap();
        let mut body: Value = serde_json::from_slice(&signed.envelope().unwrap().body).unwrap();
        body["jti"] = json!(Jti::generate());
        body["command"] = json!("rm -rf /");
        body.as_object_mut().unwrap().remove("approval");
        let envelope = Envelope::sign(&WORLD.fleet[1], PayloadType::Command, &body).unwrap().to_dsse();
        b.messages.push(Message {
            jti: serde_json::from_value(body["jti"].clone()).unwrap(),
            envelope: Some(envelope),
        });
    });
    assert!(matches!(found(&mixed), Err(NoProof::Contradiction(_))));
}

#[test]
fn only_the_fleet_signs_a_bundle() {
    let signed = WORLD.bundle.sign(&WORLD.stranger).unwrap();
    assert!(found(&serde_json::to_string(&signed).unwrap()).is_err());
    let anchor = WORLD.stranger.public().id();
    assert!(matches!(check(&text(&WORLD.bundle), anchor, None), Err(NoProof::Keyring(_))));
    let mut two = WORLD.bundle.sign(&WORLD.fleet[1]).unwrap();
    two.signatures.push(two.signatures[0].clone());
    assert!(found(&serde_json::to_string(&two).unwrap()).is_err());
}
