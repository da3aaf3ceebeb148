//! SSH signatures: those of the real `ssh-keygen`, and those of security keys, which are made by hand here.
#![allow(clippy::unwrap_used, reason = "what goes wrong fails the test")]

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use signet_common::allowed_signers::AllowedSigners;
use signet_common::sshsig::{
    BadKey, BadPrivateKey, BadSignature, SshPublicKey, private_key_fingerprint, verify,
};
use signet_common::statement::NAMESPACE;
use signet_testkit::ssh::{self, SshKey};

const MESSAGE: &[u8] = b"{\"kind\":\"command\"}";

/// An SSH string: length and bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length, bytes].concat()
}

/// A number as SSH writes it.
fn number(bytes: &[u8]) -> Vec<u8> {
    let bytes: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
    if bytes.first().is_some_and(|b| b & 0x80 != 0) {
        string(&[&[0], &*bytes].concat())
    } else {
        string(&bytes)
    }
}

struct Sig {
    magic: [u8; 6],
    version: u32,
    key: Vec<u8>,
    namespace: &'static str,
    reserved: Vec<u8>,
    hash: &'static str,
    signature: Vec<u8>,
}

impl Sig {
    fn new(key: Vec<u8>, signature: Vec<u8>) -> Self {
        let (namespace, hash) = (NAMESPACE, "sha256");
        Self { magic: *b"SSHSIG", version: 1, key, namespace, reserved: vec![], hash, signature }
    }

    fn armored(&self) -> String {
        let blob = [
            &self.magic[..],
            &self.version.to_be_bytes(),
            &string(&self.key),
            &string(self.namespace.as_bytes()),
            &string(&self.reserved),
            &string(self.hash.as_bytes()),
            &string(&self.signature),
        ]
        .concat();
        let text = STANDARD.encode(blob);
        let lines: Vec<&str> = text.as_bytes().chunks(70).map(|l| std::str::from_utf8(l).unwrap()).collect();
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
    }
}

/// What is signed when the message is hashed by SHA-256.
fn to_sign() -> Vec<u8> {
    let hash = digest(&SHA256, MESSAGE);
    [b"SSHSIG", &*string(NAMESPACE.as_bytes()), &string(b""), &string(b"sha256"), &string(hash.as_ref())]
        .concat()
}

/// What a security key signs, with these flags.
fn touched(flags: u8) -> (Vec<u8>, Vec<u8>) {
    let trailer = [&[flags][..], &7_u32.to_be_bytes()].concat();
    let (application, message) = (digest(&SHA256, b"ssh:"), digest(&SHA256, &to_sign()));
    ([application.as_ref(), &trailer, message.as_ref()].concat(), trailer)
}

fn line(key: &[u8]) -> String {
    let length = u32::from_be_bytes(key[..4].try_into().unwrap()) as usize;
    format!("{} {}", std::str::from_utf8(&key[4..4 + length]).unwrap(), STANDARD.encode(key))
}

#[test]
fn what_ssh_keygen_signs_is_believed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let kinds: [(&str, &str, &[&str]); 6] = [
        ("a", "ed25519", &[]),
        ("b", "rsa", &["-b", "2048"]),
        ("c", "rsa", &["-b", "3072"]),
        ("d", "ecdsa", &["-b", "256"]),
        ("e", "ecdsa", &["-b", "384"]),
        ("f", "ecdsa", &["-b", "521"]),
    ];
    let stranger = SshKey::ed25519(dir.path(), "stranger").public.parse::<SshPublicKey>().unwrap();
    for (name, kind, more) in kinds {
        let key = SshKey::generate(dir.path(), name, kind, more);
        let public: SshPublicKey = key.public.parse().unwrap();
        for hash in ["sha256", "sha512"] {
            let armored = key.sign(NAMESPACE, MESSAGE, &["-O", &format!("hashalg={hash}")]);
            let found = verify(&armored, NAMESPACE, MESSAGE).unwrap();
            assert_eq!(found, public, "{kind} {more:?} {hash}");
            assert_ne!(found, stranger);

            let other = verify(&armored, NAMESPACE, b"something else");
            assert_eq!(other, Err(BadSignature::Invalid), "{kind}");
            let elsewhere = verify(&armored, "git", MESSAGE);
            assert_eq!(elsewhere, Err(BadSignature::Namespace(NAMESPACE.into())), "{kind}");
        }
        let agreed = ssh::verify(dir.path(), &format!("x {}", key.public), "x", NAMESPACE, MESSAGE, &{
            key.sign(NAMESPACE, MESSAGE, &[])
        });
        assert!(agreed.status.success(), "{agreed:?}");
    }
}

#[test]
fn every_flipped_bit_of_a_signature_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, more) in [("ed25519", &[][..]), ("ecdsa", &["-b", "521"]), ("rsa", &["-b", "2048"])] {
        let key = SshKey::generate(dir.path(), kind, kind, more);
        let public: SshPublicKey = key.public.parse().unwrap();
        let armored = key.sign(NAMESPACE, MESSAGE, &[]);
        let body: String = armored.lines().filter(|line| !line.starts_with('-')).collect();
        let blob = STANDARD.decode(body).unwrap();
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = STANDARD.encode(flipped);
            let text =
                text.as_bytes().chunks(70).map(|l| std::str::from_utf8(l).unwrap()).collect::<Vec<_>>();
            let armored =
                format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", text.join("\n"));
            assert!(verify(&armored, NAMESPACE, MESSAGE).ok().as_ref() != Some(&public), "{kind}, bit {bit}");
        }
    }
}

#[test]
fn a_security_key_must_have_been_touched() {
    let dir = tempfile::tempdir().unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let name = b"sk-ssh-ed25519@openssh.com";
    let key = [string(name), string(ed25519.public_key().as_ref()), string(b"ssh:")].concat();
    let signed = |flags: u8| {
        let (text, trailer) = touched(flags);
        Sig::new(key.clone(), [string(name), string(ed25519.sign(&text).as_ref()), trailer].concat())
    };
    let agrees = |key: &[u8], sig: &str| {
        let signers = format!("x {}", line(key));
        ssh::verify(dir.path(), &signers, "x", NAMESPACE, MESSAGE, sig).status.success()
    };
    for flags in [1, 5] {
        let found = verify(&signed(flags).armored(), NAMESPACE, MESSAGE).unwrap();
        assert_eq!(found.to_string(), line(&key));
        assert!(agrees(&key, &signed(flags).armored()));
    }
    for flags in [0, 4] {
        assert_eq!(verify(&signed(flags).armored(), NAMESPACE, MESSAGE), Err(BadSignature::NotTouched));
    }
    let mut counted = signed(1);
    *counted.signature.last_mut().unwrap() += 1;
    assert_eq!(verify(&counted.armored(), NAMESPACE, MESSAGE), Err(BadSignature::Invalid), "another counter");
    let mut raised = signed(0);
    let at = raised.signature.len() - 5;
    raised.signature[at] = 1;
    assert_eq!(verify(&raised.armored(), NAMESPACE, MESSAGE), Err(BadSignature::Invalid), "a raised flag");

    let random = SystemRandom::new();
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let name = b"sk-ecdsa-sha2-nistp256@openssh.com";
    let point = string(ecdsa.public_key().as_ref());
    let key = [string(name), string(b"nistp256"), point, string(b"ssh:")].concat();
    let signed = |flags: u8| {
        let (text, trailer) = touched(flags);
        let signature = ecdsa.sign(&random, &text).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        Sig::new(key.clone(), [string(name), string(&[number(r), number(s)].concat()), trailer].concat())
    };
    assert_eq!(verify(&signed(1).armored(), NAMESPACE, MESSAGE).unwrap().to_string(), line(&key));
    assert!(agrees(&key, &signed(1).armored()));
    assert_eq!(verify(&signed(0).armored(), NAMESPACE, MESSAGE), Err(BadSignature::NotTouched));
}

#[test]
fn forms_that_openssh_would_not_write_are_refused() {
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let key = [string(b"ssh-ed25519"), string(ed25519.public_key().as_ref())].concat();
    let good = || {
        Sig::new(key.clone(), [string(b"ssh-ed25519"), string(ed25519.sign(&to_sign()).as_ref())].concat())
    };
    verify(&good().armored(), NAMESPACE, MESSAGE).unwrap();
    let malformed = |sig: Sig| verify(&sig.armored(), NAMESPACE, MESSAGE).unwrap_err();
    assert_eq!(malformed(Sig { version: 0, ..good() }), BadSignature::Malformed);
    assert_eq!(malformed(Sig { version: 2, ..good() }), BadSignature::Malformed);
    assert_eq!(malformed(Sig { magic: *b"SSHSIH", ..good() }), BadSignature::Malformed);
    assert_eq!(malformed(Sig { reserved: vec![1], ..good() }), BadSignature::Malformed);
    assert_eq!(malformed(Sig { hash: "sha1", ..good() }), BadSignature::Malformed);
    assert_eq!(malformed(Sig { hash: "sha512", ..good() }), BadSignature::Invalid);
    assert_eq!(malformed(Sig { namespace: "", ..good() }), BadSignature::Malformed);
    let more = Sig { signature: [&*good().signature, b"x"].concat(), ..good() };
    assert_eq!(malformed(more), BadSignature::Malformed);
    let twice = format!("{0}{0}", good().armored());
    for bad in ["", "x", "-----BEGIN SSH SIGNATURE-----", &twice, &"A".repeat(8 * 1024 + 1)] {
        assert_eq!(verify(bad, NAMESPACE, MESSAGE), Err(BadSignature::Malformed), "{bad}");
    }
}

#[test]
fn rsa_with_sha_1_and_short_keys_are_refused() {
    let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let n = public.modulus().big_endian_without_leading_zero().to_vec();
    let key = [string(b"ssh-rsa"), number(&[1, 0, 1]), number(&n)].concat();
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &to_sign(), &mut signature).unwrap();
    let signed = |name: &[u8], key: &[u8]| {
        verify(
            &Sig::new(key.to_vec(), [string(name), string(&signature)].concat()).armored(),
            NAMESPACE,
            MESSAGE,
        )
    };
    signed(b"rsa-sha2-256", &key).unwrap();
    assert_eq!(signed(b"rsa-sha2-512", &key), Err(BadSignature::Invalid));
    assert_eq!(signed(b"ssh-rsa", &key), Err(BadSignature::Malformed));
    assert_eq!(signed(b"ssh-ed25519", &key), Err(BadSignature::Malformed));
    let short = [string(b"ssh-rsa"), number(&[1, 0, 1]), number(&n[1..])].concat();
    assert!(matches!(signed(b"rsa-sha2-256", &short), Err(BadSignature::Key(BadKey::Size(_)))));
    assert!(matches!(line(&short).parse::<SshPublicKey>(), Err(BadKey::Size(_))));
}

#[test]
fn keys_are_compared_without_their_comments() {
    let dir = tempfile::tempdir().unwrap();
    let key = SshKey::ed25519(dir.path(), "k");
    let public: SshPublicKey = key.public.parse().unwrap();
    let (bare, _) = key.public.rsplit_once(' ').unwrap();
    assert_eq!(public.to_string(), bare);
    assert_eq!(public, format!("{bare} another comment\n").parse().unwrap());
    assert_eq!(public.fingerprint().len(), "SHA256:".len() + 43);
    for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", &key.public.replacen("ssh-ed25519", "ssh-rsa", 1)] {
        assert!(bad.parse::<SshPublicKey>().is_err(), "{bad}");
    }
}

fn signers(text: &str) -> Result<AllowedSigners, String> {
    AllowedSigners::parse(text, NAMESPACE).map_err(|e| e.to_string())
}

#[test]
fn allowed_signers_are_read_as_openssh_does() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (SshKey::ed25519(dir.path(), "a"), SshKey::ed25519(dir.path(), "b"));
    let rsa = SshKey::generate(dir.path(), "c", "rsa", &["-b", "2048"]);
    let text = format!(
        "# people\n\nalice {}\n\"alice\" namespaces=\"git,signet-*\" {}\n\
         bob valid-after=\"20260101Z\",valid-before=\"202602010000Z\" {}\n",
        a.public, rsa.public, b.public
    );
    let list = signers(&text).unwrap();
    let who =
        |key: &SshKey, now| list.signer(&key.public.parse().unwrap(), now).map(|p| p.as_str().to_owned());
    assert_eq!((who(&a, 0), who(&rsa, i64::MAX)), (Some("alice".into()), Some("alice".into())));
    let (from, until) = (1_767_225_600, 1_769_904_000);
    let bob = [from - 1, from, until, until + 1].map(|now| who(&b, now).is_some());
    assert_eq!(bob, [false, true, true, false]);
    assert_eq!(list.people().iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    let stranger = SshKey::ed25519(dir.path(), "stranger");
    assert_eq!(who(&stranger, from), None);
    // The same file does for `ssh-keygen`.
    let sig = rsa.sign(NAMESPACE, MESSAGE, &[]);
    assert!(ssh::verify(dir.path(), &text, "alice", NAMESPACE, MESSAGE, &sig).status.success());
}

#[test]
fn a_line_that_can_not_be_obeyed_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let key = SshKey::ed25519(dir.path(), "a").public;
    let other = SshKey::ed25519(dir.path(), "b").public;
    for (bad, why) in [
        (format!("* {key}"), "exactly one person"),
        (format!("a?ice {key}"), "exactly one person"),
        (format!("alice,bob {key}"), "exactly one person"),
        (format!("alice cert-authority {key}"), "certificate authorities"),
        (format!("alice cert-authority,namespaces=\"git\" {key}"), "certificate authorities"),
        (format!("alice namespaces=\"git\" {key}"), "not for the namespace"),
        (format!("alice namespaces=\"!x,*\" {key}"), "not supported"),
        (format!("alice no-touch-required {key}"), "not supported"),
        (format!("alice valid-after=\"20260101\" {key}"), "time in UTC"),
        (format!("alice valid-after=\"20261301Z\" {key}"), "time in UTC"),
        (format!("alice valid-after=\"2026Z\" {key}"), "time in UTC"),
        (format!("alice valid-after=\"20260101Z\",valid-after=\"20260101Z\" {key}"), "twice"),
        (format!("alice valid-after=\"20260101Z\"x {key}"), "commas"),
        (format!("alice valid-after=\"20260101Z {key}"), "quote"),
        (format!("bob {key}"), "belongs to ann"),
        (format!("Ann@example.com {other}"), "one person needs one name"),
        ("alice".into(), "not an OpenSSH public key"),
        ("alice ssh-ed25519 AAAA".into(), "not an OpenSSH public key"),
        ("alice ssh-dss AAAAB3NzaC1kc3MAAAABAQ==".into(), "not an OpenSSH"),
        (key.clone(), "not"),
    ] {
        let found = signers(&format!("# one\nann {key}\nann {other}\n{bad}\n"));
        let error = found.expect_err(&bad);
        assert!(error.starts_with("line 4: ") && error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn someone_who_may_be_the_requester_counts_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let key = SshKey::ed25519(dir.path(), "a").public;
    let list = signers(&format!("Alice@example.com {key}")).unwrap();
    let alice = list.people()[0];
    assert!(alice.may_be("alice") && alice.may_be("alice@elsewhere") && alice.may_be("Alice@example.com"));
    assert!(!alice.may_be("al") && !alice.may_be("bob@example.com"));
}

#[test]
fn private_keys_of_the_real_tool() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, more) in [("ed25519", &[][..]), ("ecdsa", &["-b", "384"]), ("rsa", &["-b", "2048"])] {
        let key = SshKey::generate(dir.path(), kind, kind, more);
        let public: SshPublicKey = key.public.parse().unwrap();
        assert_eq!(private_key_fingerprint(&key.private()).unwrap(), public.fingerprint(), "{kind}");
    }
    let locked = SshKey::locked(dir.path(), "locked", "phrase").private();
    assert_eq!(private_key_fingerprint(&locked), Err(BadPrivateKey::Locked));
    let pem = SshKey::generate(dir.path(), "pem", "rsa", &["-b", "2048", "-m", "PEM"]).private();
    for bad in ["", "x", &pem, &locked[..100]] {
        assert_eq!(private_key_fingerprint(bad), Err(BadPrivateKey::Malformed));
    }
}
