//! The classes of altered messages, each with the reason that it must be refused for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Value, json};
use signet_common::envelope::{Envelope, PayloadType, Refusal, pae};
use signet_common::{AgentId, Jti, SigningKey};

/// Alters a message that was accepted, without the key.
type Alter = fn(&mut Envelope, other: &Envelope, &mut Rng) -> Refusal;
/// Signs something wrong anew.
type Sign = fn(&Forger, &mut Rng) -> (Envelope, Refusal);

/// What needs no key at all.
pub(crate) const ALTERED: [(&str, Alter); 10] = [
    ("a bit of the body flipped", |e, _, rng| {
        e.body = Bytes::from(flip(&e.body, rng));
        Refusal::Signature
    }),
    ("a bit of the signature flipped", |e, _, rng| {
        e.sig = STANDARD.encode(flip(&STANDARD.decode(&e.sig).unwrap(), rng));
        Refusal::Signature
    }),
    ("another's signature", |e, other, _| {
        e.sig.clone_from(&other.sig);
        Refusal::Signature
    }),
    ("another's body", |e, other, _| {
        e.body.clone_from(&other.body);
        Refusal::Signature
    }),
    ("another type", |e, _, rng| {
        let types = [PayloadType::Deploy, PayloadType::Cancel, PayloadType::Resume, PayloadType::Report];
        e.payload_type = rng.choice(types).unwrap().as_str().to_owned();
        Refusal::Signature
    }),
    ("a digit of the key id changed", |e, _, rng| {
        let at = rng.usize(0..64);
        let digit = if e.keyid.as_bytes()[at] == b'0' { "1" } else { "0" };
        e.keyid.replace_range(at..=at, digit);
        Refusal::Key
    }),
    ("a malformed key id", |e, _, rng| {
        // A key id without a letter is the same in upper case; this run's has one.
        e.keyid = rng.choice([e.keyid.to_uppercase(), e.keyid[1..].to_owned(), String::new()]).unwrap();
        Refusal::Headers
    }),
    ("a malformed signature", |e, _, rng| {
        let at = rng.usize(0..e.sig.len() - 2);
        e.sig.replace_range(at..=at, rng.choice(["!", "-", "_", " ", "\n"]).unwrap());
        Refusal::Headers
    }),
    ("a part of the signature", |e, _, rng| {
        e.sig.truncate(rng.usize(0..e.sig.len() / 4) * 4);
        Refusal::Signature
    }),
    ("replayed", |_, _, _| Refusal::Duplicate),
];

/// What is signed anew, most of it with the true key.
pub(crate) const SIGNED: [(&str, Sign); 8] = [
    ("another audience", |f, _| {
        (f.sign_with(|body| body["aud"] = json!(["0".repeat(40), "controller"])), Refusal::Audience)
    }),
    ("expired", |f, rng| {
        let ago = 1 + rng.i64(0..600);
        let message = f.sign_with(|body| {
            body["iat"] = json!(f.now - 700);
            body["exp"] = json!(f.now - ago);
        });
        (message, Refusal::Expired)
    }),
    ("from the future", |f, rng| {
        // A running agent's clock moves on while these are on their way.
        let ahead = 600 + rng.i64(0..1_000);
        let message = f.sign_with(|body| {
            body["iat"] = json!(f.now + ahead);
            body["exp"] = json!(f.now + 2_000);
        });
        (message, Refusal::Future)
    }),
    ("a type that no agent takes", |f, rng| {
        let wrong = [PayloadType::Report, PayloadType::Heartbeat, PayloadType::Hello, PayloadType::Welcome];
        let kind = rng.choice(wrong).unwrap();
        (Envelope::sign(&f.fleet, kind, &f.command()).unwrap(), Refusal::Type)
    }),
    ("another version", |f, _| {
        let text = "application/vnd.signet.command.v2+json";
        let bytes = serde_json::to_vec(&f.command()).unwrap();
        let sig = STANDARD.encode(f.fleet.sign(&pae(text, &bytes)).unwrap());
        let keyid = f.fleet.public().id().to_string();
        (Envelope { payload_type: text.into(), keyid, sig, body: bytes.into() }, Refusal::Version)
    }),
    ("a key twice", |f, _| {
        let twice = serde_json::to_string(&f.command()).unwrap().replacen('{', "{\"command\":\"false\",", 1);
        let signed = Envelope::sign_bytes(&f.fleet, PayloadType::Command, twice.into()).unwrap();
        (signed, Refusal::Malformed)
    }),
    ("a stranger's", |f, _| {
        (Envelope::sign(&f.stranger, PayloadType::Command, &f.command()).unwrap(), Refusal::Key)
    }),
    ("a stranger's with the true key's id", |f, _| {
        let mut e = Envelope::sign(&f.stranger, PayloadType::Command, &f.command()).unwrap();
        e.keyid = f.fleet.public().id().to_string();
        (e, Refusal::Signature)
    }),
];

/// Who makes messages: it holds the fleet's key, and one that nobody knows.
pub(crate) struct Forger {
    pub(crate) fleet: SigningKey,
    pub(crate) stranger: SigningKey,
    /// Whom good messages are for.
    pub(crate) to: AgentId,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

impl Forger {
    /// A good command.
    pub(crate) fn command(&self) -> Value {
        json!({
            "iss": "controller", "aud": [self.to], "iat": self.now, "exp": self.now + 600, "jti": Jti::generate(),
            "task_id": "t1", "command": "true", "timeout": 30,
        })
    }

    /// A good command, signed.
    pub(crate) fn good(&self) -> Envelope {
        self.sign_with(|_| ())
    }

    fn sign_with(&self, change: impl FnOnce(&mut Value)) -> Envelope {
        let mut body = self.command();
        change(&mut body);
        Envelope::sign(&self.fleet, PayloadType::Command, &body).unwrap()
    }
}

/// One altered message of a class, made from two of those that were accepted.
pub(crate) fn altered(alter: Alter, bases: &[Envelope], rng: &mut Rng) -> (Envelope, Refusal) {
    let at = rng.usize(0..bases.len());
    let other = (at + rng.usize(1..bases.len())) % bases.len();
    let mut message = bases[at].clone();
    let refusal = alter(&mut message, &bases[other], rng);
    (message, refusal)
}

fn flip(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = rng.usize(0..out.len());
    out[at] ^= 1 << rng.u8(0..8);
    out
}
