//! Messages made from ones that were accepted in the same run, each altered in one way: none is accepted, and the
//! counts by reason match what was done. 20,000 of them; with `SIGNET_SOAK=1` a million. The seed is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

mod classes;
#[path = "../fleet/controller.rs"]
#[allow(dead_code, reason = "shared with the tests of whole agents")]
mod controller;
mod live;
#[path = "../fleet/support.rs"]
#[allow(dead_code, reason = "shared with the tests of whole agents")]
mod support;

use std::collections::{BTreeMap, HashSet};

use classes::{ALTERED, Forger, SIGNED, altered};
use fastrand::Rng;
use signet_agent::policy::Policy;
use signet_agent::verify::{Checked, Context, Refused, Seen, Time, check};
use signet_common::envelope::{Envelope, Refusal};
use signet_common::keyring::Keyring;
use signet_common::{Jti, SigningKey};

const NOW: i64 = 1_800_000_000;

struct World {
    forger: Forger,
    keyring: Keyring,
    policy: Policy,
    known: HashSet<Jti>,
    refused: Refused,
}

impl World {
    fn new() -> Self {
        let fleet = SigningKey::generate().unwrap();
        let (keyring, _) = Keyring::first(&fleet, NOW).unwrap();
        let (to, stranger) = (fleet.public().agent_id(), SigningKey::generate().unwrap());
        Self {
            forger: Forger { fleet, stranger, to, now: NOW },
            policy: Policy::default(),
            known: HashSet::new(),
            refused: Refused::default(),
            keyring,
        }
    }

    /// What the agent makes of it.
    fn check(&mut self, envelope: &Envelope) -> Option<Refusal> {
        let context = Context {
            me: &self.forger.to,
            keyring: &self.keyring,
            not_before: NOW - 3_600,
            first_log: true,
            clock: NOW,
            policy: &self.policy,
            own_user: "root",
            log_began: 0,
        };
        let known = &self.known;
        match check(
            envelope,
            &context,
            &mut Time::default(),
            |seen| matches!(seen, Seen::Message(jti) if known.contains(jti)),
        ) {
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

#[test]
fn no_altered_message_is_accepted_and_each_is_counted_by_its_reason() {
    let soak = std::env::var_os("SIGNET_SOAK").is_some();
    let count = if soak { 1_000_000 } else { 20_000 };
    let seed = fastrand::u64(..);
    println!("{count} altered messages, seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new();
    let bases: Vec<Envelope> = (0..64).map(|_| world.forger.good()).collect();
    for base in &bases {
        assert_eq!(world.check(base), None, "the message itself is good");
    }
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..count {
        // One in eight is signed anew: that costs a millisecond.
        let (class, (envelope, refusal)) = if number % 8 == 0 {
            let (class, sign) = rng.choice(SIGNED).unwrap();
            (class, sign(&world.forger, &mut rng))
        } else {
            let (class, alter) = rng.choice(ALTERED).unwrap();
            (class, altered(alter, &bases, &mut rng))
        };
        assert_eq!(world.check(&envelope), Some(refusal), "number {number}, {class}: {envelope:?}");
        *expected.entry(refusal.label().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(world.refused.by_label(), expected);
    println!("{expected:?}");
    let large = Envelope { body: vec![b' '; 1024 * 1024 + 1].into(), ..bases[0].clone() };
    assert_eq!(world.check(&large), Some(Refusal::Size));
    let good = world.forger.good();
    assert_eq!(world.check(&good), None, "a good one is still accepted afterwards");
}
