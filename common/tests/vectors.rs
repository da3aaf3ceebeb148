//! The wire format against openssl: what openssl signed is judged here, and what is signed here openssl judges.
//! `scripts/make-vectors` makes the vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what goes wrong fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use signet_common::chain::{ChainHash, Chained};
use signet_common::envelope::{Audience, DsseJson, Refusal, pae};
use signet_common::ids::{AgentId, KeyId, LogId};
use signet_common::join::{JoinProof, JoinToken};
use signet_common::limits::MESSAGE_BYTES_MAX;
use signet_common::messages;
use signet_common::{Envelope, PayloadType, PublicKey, SigningKey};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_pem(&text("key.pem")).unwrap()
}

/// The agent that the vectors are for.
fn receiver() -> AgentId {
    PublicKey::from_pem(&text("other.pub.pem")).unwrap().agent_id()
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    expected: String,
    envelope: DsseJson,
}

/// What a receiver says that believes one key.
fn judge(envelope: &Envelope) -> Result<messages::Command, Refusal> {
    let believed = key().public().clone();
    let authentic =
        envelope.verify(PayloadType::TO_AGENTS, |id| Some(believed.clone()).filter(|k| k.id() == id))?;
    Ok(authentic.open::<messages::Command>(&Audience::Agent(receiver()))?.into_inner())
}

#[test]
fn what_openssl_signed_is_judged_as_it_should_be() {
    let vectors: Vec<Vector> = serde_json::from_str(&text("messages.json")).unwrap();
    assert!(vectors.len() > 20);
    for Vector { name, expected, envelope } in vectors {
        let judged = judge(&envelope.envelope().unwrap());
        let label = judged.as_ref().map_or_else(|refusal| refusal.label(), |_| "ok");
        assert_eq!(label, expected, "{name}");
        if let Ok(command) = judged {
            assert_eq!(command.command.as_deref(), Some("echo 你好"), "{name}");
        }
    }
}

#[test]
fn a_message_that_is_too_large_is_refused_before_anything_else() {
    let body = vec![b' '; MESSAGE_BYTES_MAX + 1];
    let large =
        Envelope { payload_type: String::new(), keyid: String::new(), sig: String::new(), body: body.into() };
    assert_eq!(judge(&large).unwrap_err(), Refusal::Size);
}

#[test]
fn both_forms_of_a_public_key_have_the_id_that_openssl_computes() {
    let id: KeyId = text("keyid.txt").trim().parse().unwrap();
    for name in ["key.pub.pem", "key.pkcs1.pub.pem"] {
        let read = PublicKey::from_pem(&text(name)).unwrap();
        assert_eq!(read.id(), &id, "{name}");
        assert_eq!(read.to_pem(), text("key.pub.pem").trim_end(), "{name}");
        assert_eq!(read.agent_id().as_str(), &id.as_str()[..40]);
    }
    assert_eq!(key().public().id(), &id);
}

fn openssl(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).current_dir(directory).output().unwrap()
}

#[test]
fn openssl_verifies_what_is_signed_here_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let body = br#"{"iss":"controller"}"#;
    let envelope = Envelope::sign_bytes(&key(), PayloadType::Command, body.as_slice().into()).unwrap();
    let sig = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &envelope.sig).unwrap();
    std::fs::write(at("sig"), &sig).unwrap();
    std::fs::write(at("pae"), pae(&envelope.payload_type, &envelope.body)).unwrap();
    let mut flipped = pae(&envelope.payload_type, &envelope.body);
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(at("flipped"), flipped).unwrap();

    let verifies = |key: &str, padding: &str, salt: &str, signed: &str| {
        let (key, salt) = (file(key), format!("rsa_pss_saltlen:{salt}"));
        let mut arguments = vec!["dgst", "-sha256", "-verify", key.to_str().unwrap(), "-sigopt", padding];
        if padding.ends_with(":pss") {
            arguments.extend(["-sigopt", &salt]);
        }
        arguments.extend(["-signature", "sig", signed]);
        let output = openssl(directory.path(), &arguments);
        output.status.success() && output.stdout == b"Verified OK\n"
    };
    let pss = "rsa_padding_mode:pss";
    assert!(verifies("key.pub.pem", pss, "32", "pae"));
    assert!(!verifies("key.pub.pem", pss, "32", "flipped"));
    assert!(!verifies("other.pub.pem", pss, "32", "pae"));
    assert!(!verifies("key.pub.pem", pss, "20", "pae"));
    assert!(!verifies("key.pub.pem", "rsa_padding_mode:pkcs1", "32", "pae"));
}

#[test]
fn keys_made_here_are_read_by_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let made = SigningKey::generate().unwrap();
    std::fs::write(directory.path().join("key.pem"), made.to_pem().unwrap()).unwrap();
    let read = openssl(directory.path(), &["pkey", "-in", "key.pem", "-pubout"]);
    assert_eq!(String::from_utf8(read.stdout).unwrap().trim_end(), made.public().to_pem());
    let size = openssl(directory.path(), &["pkey", "-in", "key.pem", "-noout", "-text"]);
    assert!(String::from_utf8(size.stdout).unwrap().contains("3072 bit"));
}

#[test]
fn the_chain_is_what_openssl_computes() {
    let lines = text("chain.txt");
    let lines: Vec<&str> = lines.lines().collect();
    let [log, genesis, one, two] = lines[..] else { panic!("chain.txt has four lines") };
    let log: LogId = log.parse().unwrap();
    assert_eq!(ChainHash::genesis(&log).to_string(), genesis);
    let (first, second) = (Chained::parse(one.into()).unwrap(), Chained::parse(two.into()).unwrap());
    assert!(first.continues(ChainHash::genesis(&log), 0));
    assert!(second.continues(first.chain, 1));
    // Written here, the same event is the same text.
    assert_eq!(Chained::next(first.chain, 2, second.event.clone()).unwrap().text, two);
}

#[test]
fn the_join_proof_is_what_openssl_computes() {
    let lines = text("join.txt");
    let lines: Vec<&str> = lines.lines().collect();
    let [token, nonce, agent, proof] = lines[..] else { panic!("join.txt has four lines") };
    let token: JoinToken = token.parse().unwrap();
    let agent: AgentId = agent.parse().unwrap();
    assert_eq!(token.fingerprint.as_ref(), Some(key().public().id()));
    let expected = JoinProof { token_id: "t1".into(), proof: proof.into() };
    assert_eq!(token.prove(nonce, &agent), expected);
    assert!(token.verifier().accepts(&expected, nonce, &agent));
}

/// The worked example of `docs/wire-format.md` works when it is pasted.
#[test]
fn the_documented_commands_work() {
    let document = include_str!("../../docs/wire-format.md");
    let example = document.split_once("## A worked example").expect("the chapter").1;
    let mut script = String::from("set -eu\n");
    for block in example.split("```sh\n").skip(1) {
        script.push_str(block.split_once("```").unwrap().0);
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("bash").arg("-c").arg(&script).current_dir(directory.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{complaints}");
    assert!(said.contains("Verified OK"), "{said}");

    // What the example made is a message that is believed here.
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let public = PublicKey::from_pem(&String::from_utf8(read("pub.pem")).unwrap()).unwrap();
    let envelope = Envelope {
        payload_type: PayloadType::Command.as_str().into(),
        keyid: String::from_utf8(read("keyid")).unwrap().trim().into(),
        sig: String::from_utf8(read("sig.b64")).unwrap(),
        body: read("body.json").into(),
    };
    let authentic =
        envelope.verify(PayloadType::TO_AGENTS, |id| Some(public.clone()).filter(|k| k.id() == id));
    let me = Audience::Agent("0123456789abcdef0123456789abcdef01234567".parse().unwrap());
    let command = authentic.unwrap().open::<messages::Command>(&me).unwrap().into_inner();
    assert_eq!(command.command.as_deref(), Some("uname -sr"));
    let dsse: DsseJson = serde_json::from_slice(&read("message.json")).unwrap();
    assert_eq!(dsse.envelope().unwrap(), envelope);
}

/// The field that a line of a type gives.
fn field(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("pub ")?.split_once(": ").map(|(name, _)| name)
}

#[test]
fn every_field_is_documented() {
    let document = include_str!("../../docs/wire-format.md");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let messages = std::fs::read_dir(source.join("messages")).unwrap().map(|file| file.unwrap().path());
    let files = messages.chain([source.join("keyring.rs"), source.join("deploy/mod.rs")]);
    let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let names: Vec<&str> =
        lines.filter(|line| !line.contains("fn ") && !line.contains("const ")).filter_map(field).collect();
    assert!(names.len() > 80, "{names:?}");
    for name in names {
        assert!(document.contains(&format!("`{name}`")), "docs/wire-format.md does not say what `{name}` is");
    }
    for kind in PayloadType::ALL {
        let name = kind.as_str().trim_start_matches("application/vnd.signet.").trim_end_matches(".v1+json");
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
    for refusal in Refusal::ALL {
        assert!(document.contains(&format!("| `{}` |", refusal.label())), "{refusal:?}");
    }
}
