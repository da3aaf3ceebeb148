//! Messages made from ones that were accepted in the same run, each altered in one way: none is accepted, and the
//! counts by reason match what was done. 20,000 of them; with `SIGNET_SOAK=1` a million. The seed is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Value, json};
use signet_agent::policy::Policy;
use signet_agent::verify::{Checked, Context, Refused, Time, check};
use signet_common::envelope::{Envelope, PayloadType, Refusal, pae};
use signet_common::keyring::Keyring;
use signet_common::{AgentId, Jti, SigningKey};

const NOW: i64 = 1_800_000_000;

struct World {
    fleet: SigningKey,
    stranger: SigningKey,
    keyring: Keyring,
    me: AgentId,
    policy: Policy,
    known: HashSet<Jti>,
    refused: Refused,
}

impl World {
    fn new() -> Self {
        let fleet = SigningKey::generate().unwrap();
        let (keyring, _) = Keyring::first(&fleet, NOW).unwrap();
        Self {
            stranger: SigningKey::generate().unwrap(),
            me: fleet.public().agent_id(),
            policy: Policy::default(),
            known: HashSet::new(),
            refused: Refused::default(),
            keyring,
            fleet,
        }
    }

    fn command(&self) -> Value {
        json!({
            "iss": "controller", "aud": [self.me], "iat": NOW, "exp": NOW + 600, "jti": Jti::generate(),
            "task_id": "t1", "command": "true", "timeout": 30,
        })
    }

    fn sign(&self, body: &Value) -> Envelope {
        Envelope::sign(&self.fleet, PayloadType::Command, body).unwrap()
    }

    /// What the agent makes of it.
    fn check(&mut self, envelope: &Envelope) -> Option<Refusal> {
        let context = Context {
            me: &self.me,
            keyring: &self.keyring,
            not_before: NOW - 3_600,
            clock: NOW,
            policy: &self.policy,
            own_user: "root",
        };
        let known = &self.known;
        match check(envelope, &context, &mut Time::default(), |jti| known.contains(jti)) {
            Checked::Do(instruction) => {
                self.known.insert(instruction.jti().clone());
                None
            }
            Checked::Reject { reason, detail, .. } => panic!("rejected as {reason:?}: {detail}"),
            Checked::Refuse(refusal) => {
                self.refused.count(refusal);
                Some(refusal)
            }
            Checked::Late { .. } => {
                self.refused.count(Refusal::Expired);
                Some(Refusal::Expired)
            }
        }
    }
}

fn flip(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = rng.usize(0..out.len());
    out[at] ^= 1 << rng.u8(0..8);
    out
}

/// Alters only what needs no new signature.
fn altered(base: &Envelope, other: &Envelope, kind: usize, rng: &mut Rng) -> (Envelope, Refusal) {
    let mut e = base.clone();
    let refusal = match kind {
        0 => {
            e.body = Bytes::from(flip(&e.body, rng));
            Refusal::Signature
        }
        1 => {
            e.sig = STANDARD.encode(flip(&STANDARD.decode(&e.sig).unwrap(), rng));
            Refusal::Signature
        }
        2 => {
            e.sig.clone_from(&other.sig);
            Refusal::Signature
        }
        3 => {
            e.body.clone_from(&other.body);
            Refusal::Signature
        }
        4 => {
            let types = [PayloadType::Deploy, PayloadType::Cancel, PayloadType::Resume, PayloadType::Report];
            e.payload_type = rng.choice(types).unwrap().as_str().to_owned();
            Refusal::Signature
        }
        5 => {
            let at = rng.usize(0..64);
            let digit = if e.keyid.as_bytes()[at] == b'0' { "1" } else { "0" };
            e.keyid.replace_range(at..=at, digit);
            Refusal::Key
        }
        6 => {
            e.keyid = rng.choice([e.keyid.to_uppercase(), e.keyid[1..].to_owned(), String::new()]).unwrap();
            // A key id without a letter is the same in upper case; this run's has one.
            Refusal::Headers
        }
        7 => {
            let at = rng.usize(0..e.sig.len() - 2);
            e.sig.replace_range(at..=at, rng.choice(["!", "-", "_", " ", "\n"]).unwrap());
            Refusal::Headers
        }
        8 => {
            e.sig.truncate(rng.usize(0..e.sig.len() / 4) * 4);
            Refusal::Signature
        }
        _ => return (e, Refusal::Duplicate),
    };
    (e, refusal)
}

/// Signs something wrong anew, most of it with the true key.
fn signed_anew(world: &World, kind: usize, rng: &mut Rng) -> (Envelope, Refusal) {
    let mut body = world.command();
    match kind {
        0 => {
            body["aud"] = json!(["0".repeat(40), "controller"]);
            (world.sign(&body), Refusal::Audience)
        }
        1 => {
            body["iat"] = json!(NOW - 700);
            body["exp"] = json!(NOW - 1 - rng.i64(0..600));
            (world.sign(&body), Refusal::Expired)
        }
        2 => {
            body["iat"] = json!(NOW + 61 + rng.i64(0..1_000));
            body["exp"] = json!(NOW + 2_000);
            (world.sign(&body), Refusal::Future)
        }
        3 => {
            let wrong =
                [PayloadType::Report, PayloadType::Heartbeat, PayloadType::Hello, PayloadType::Welcome];
            let kind = rng.choice(wrong).unwrap();
            (Envelope::sign(&world.fleet, kind, &body).unwrap(), Refusal::Type)
        }
        4 => {
            let text = "application/vnd.signet.command.v2+json";
            let bytes = serde_json::to_vec(&body).unwrap();
            let sig = STANDARD.encode(world.fleet.sign(&pae(text, &bytes)).unwrap());
            let keyid = world.fleet.public().id().to_string();
            (Envelope { payload_type: text.into(), keyid, sig, body: bytes.into() }, Refusal::Version)
        }
        5 => {
            let twice = serde_json::to_string(&body).unwrap().replacen('{', "{\"command\":\"false\",", 1);
            let signed = Envelope::sign_bytes(&world.fleet, PayloadType::Command, twice.into()).unwrap();
            (signed, Refusal::Malformed)
        }
        6 => (Envelope::sign(&world.stranger, PayloadType::Command, &body).unwrap(), Refusal::Key),
        _ => {
            let mut e = Envelope::sign(&world.stranger, PayloadType::Command, &body).unwrap();
            e.keyid = world.fleet.public().id().to_string();
            (e, Refusal::Signature)
        }
    }
}

#[test]
fn no_altered_message_is_accepted_and_each_is_counted_by_its_reason() {
    let soak = std::env::var_os("SIGNET_SOAK").is_some();
    let count = if soak { 1_000_000 } else { 20_000 };
    let seed = fastrand::u64(..);
    println!("{count} altered messages, seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new();
    let bases: Vec<Envelope> = (0..64).map(|_| world.sign(&world.command())).collect();
    for base in &bases {
        assert_eq!(world.check(base), None, "the message itself is good");
    }
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..count {
        // One in eight is signed anew: that costs a millisecond.
        let (envelope, refusal) = if number % 8 == 0 {
            signed_anew(&world, rng.usize(0..8), &mut rng)
        } else {
            let at = rng.usize(0..bases.len());
            let other = (at + rng.usize(1..bases.len())) % bases.len();
            altered(&bases[at], &bases[other], rng.usize(0..10), &mut rng)
        };
        assert_eq!(world.check(&envelope), Some(refusal), "number {number}: {envelope:?}");
        *expected.entry(refusal.label().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(world.refused.by_label(), expected);
    println!("{expected:?}");
    let large = Envelope { body: vec![b' '; 1024 * 1024 + 1].into(), ..bases[0].clone() };
    assert_eq!(world.check(&large), Some(Refusal::Size));
    let good = world.sign(&world.command());
    assert_eq!(world.check(&good), None, "a good one is still accepted afterwards");
}
