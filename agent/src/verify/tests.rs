//! Messages and what becomes of them: each check, the order of all, and the edges of the time window.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signet_common::keys::SigningKey;
use signet_common::statement::Statement;
use std::sync::LazyLock;

const NOW: i64 = 1_800_000_000;
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());
static OTHER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());

fn me() -> AgentId {
    "a".repeat(40).parse().unwrap()
}

fn base() -> Value {
    json!({
        "iss": "controller", "aud": [me()], "iat": NOW, "exp": NOW + 600, "jti": Jti::generate(),
        "task_id": "t", "command": "true", "timeout": 30,
    })
}

fn signed(kind: PayloadType, payload: &Value) -> Envelope {
    Envelope::sign(&KEY, kind, payload).unwrap()
}

fn run(envelope: &Envelope, known: bool) -> String {
    run_in(envelope, known, true, &mut Time::default())
}

fn run_in(envelope: &Envelope, known: bool, first_log: bool, time: &mut Time) -> String {
    let (keyring, _) = Keyring::first(&KEY, 1).unwrap();
    let policy = Policy::for_user("me");
    let context = Context {
        me: &me(),
        keyring: &keyring,
        not_before: NOW - 1_000,
        first_log,
        clock: NOW,
        policy: &policy,
        own_user: "me",
        log_began: 0,
    };
    match check(envelope, &context, time, |_| known) {
        Checked::Do(instruction) => format!("do {}", instruction.jti()),
        Checked::Reject { reason, .. } => format!("reject {reason:?}"),
        Checked::Late { .. } => "late".to_owned(),
        Checked::Refuse(refusal) => refusal.label().to_owned(),
    }
}

/// Each message fails one check and all that come after it; the first must win.
#[test]
fn the_order_of_the_checks() {
    let mut payload = base();
    payload["user"] = json!("root");
    let mut expected = vec!["reject Policy"];
    let mut messages = vec![(signed(PayloadType::Command, &payload), false)];

    payload["unknown"] = json!(1);
    expected.push("reject Unsupported");
    messages.push((signed(PayloadType::Command, &payload), false));

    payload["iat"] = json!(NOW + 61);
    expected.push("future");
    messages.push((signed(PayloadType::Command, &payload), false));

    payload["exp"] = json!(NOW - 1);
    expected.push("late");
    messages.push((signed(PayloadType::Command, &payload), false));

    expected.push("duplicate");
    messages.push((signed(PayloadType::Command, &payload), true));

    payload["aud"] = json!(["b".repeat(40)]);
    expected.push("audience");
    messages.push((signed(PayloadType::Command, &payload), true));

    payload["jti"] = json!("x");
    expected.push("malformed");
    messages.push((signed(PayloadType::Command, &payload), true));

    expected.push("type");
    messages.push((signed(PayloadType::Report, &payload), true));

    let body: bytes::Bytes = serde_json::to_vec(&payload).unwrap().into();
    let later = "application/vnd.signet.report.v2+json";
    let sig = KEY.sign(&signet_common::envelope::pae(later, &body)).unwrap();
    let sig = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sig);
    let keyid = KEY.public().id().to_string();
    let version = Envelope { payload_type: later.into(), keyid, sig, body };
    expected.push("version");
    messages.push((version.clone(), true));

    let mut forged = version;
    forged.payload_type = "application/vnd.signet.report.v3+json".into();
    expected.push("signature");
    messages.push((forged.clone(), true));

    forged.keyid = OTHER.public().id().to_string();
    expected.push("key");
    messages.push((forged.clone(), true));

    forged.keyid = "x".into();
    expected.push("headers");
    messages.push((forged.clone(), true));

    forged.body = vec![b' '; signet_common::limits::MESSAGE_BYTES_MAX + 1].into();
    expected.push("size");
    messages.push((forged, true));

    let found: Vec<String> = messages.iter().map(|(m, known)| run(m, *known)).collect();
    assert_eq!(found, expected);
}

#[test]
fn edges_of_the_time_window() {
    let mut payload = base();
    for (iat, exp, expected) in [
        (NOW, NOW, "do"),
        (NOW, NOW - 1, "late"),
        (NOW - 600, NOW - 120, "late"),
        (NOW - 600, NOW - 121, "expired"),
        (NOW + 60, NOW + 660, "do"),
        (NOW + 61, NOW + 661, "future"),
        (NOW - 1_000, NOW + 1, "do"),
        (NOW - 1_001, NOW + 1, "reject NewLog"),
        (NOW - 1_060, NOW + 1, "reject NewLog"),
        (NOW - 1_061, NOW + 1, "expired"),
        (NOW - 1_001, NOW - 1, "expired"),
        (NOW, NOW + 7 * 86_400, "do"),
        (NOW, NOW + 7 * 86_400 + 1, "malformed"),
    ] {
        (payload["iat"], payload["exp"]) = (json!(iat), json!(exp));
        let found = run(&signed(PayloadType::Command, &payload), false);
        assert!(found.starts_with(expected), "{iat} {exp}: {found}");
    }
    (payload["iat"], payload["exp"]) = (json!(NOW - 1_001), json!(NOW + 1));
    let message = signed(PayloadType::Command, &payload);
    let found = run_in(&message, false, false, &mut Time::default());
    assert_eq!(found, "expired", "it may have run under the log before");
}

#[test]
fn where_approvals_count_a_task_from_the_future_has_to_come_again() {
    let policy = "[approvers]\ncount = 1\nallowed_signers = 'a ssh-ed25519 \
        AAAAC3NzaC1lZDI1NTE5AAAAIJYqT1T8rbTEnYbdCv4VoHPmvyLMmtqcfUNFNNMvm7gN'\n";
    let (dir, me) = (tempfile::tempdir().unwrap(), me());
    let file = dir.path().join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    let approved = Policy::default().find(Some(&file), dir.path()).unwrap();
    let (keyring, _) = Keyring::first(&KEY, 1).unwrap();
    for (policy, ahead, expected) in
        [(&approved, 0, "Reject"), (&approved, 1, "Refuse(Future)"), (&Policy::default(), 1, "Do")]
    {
        let seconds = u64::try_from(NOW + ahead).unwrap();
        let task = uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0));
        let mut payload = base();
        (payload["task_id"], payload["iat"]) = (json!(task.to_string()), json!(NOW + 30));
        let command = serde_json::from_value(payload.clone()).unwrap();
        let statement = Statement::of_command(&command, "b", NOW + 600, vec![me.clone()]).unwrap();
        payload["approval"] = json!({ "statement": STANDARD.encode(statement.to_bytes().unwrap()) });
        let message = signed(PayloadType::Command, &payload);
        let (not_before, clock, log_began) = (0, NOW, NOW - 60);
        let context = Context {
            me: &me,
            keyring: &keyring,
            not_before,
            first_log: true,
            clock,
            policy,
            own_user: "me",
            log_began,
        };
        let found = format!("{:?}", check(&message, &context, &mut Time::default(), |_| false));
        assert!(found.starts_with(expected), "{ahead}: {found}");
    }
}

#[test]
fn a_controllers_wrong_clock_does_not_make_everything_expire() {
    let mut time = Time::default();
    let mut cancel = json!({
        "iss": "controller", "aud": [me()], "iat": NOW + 61, "exp": NOW + 600, "jti": Jti::generate(),
        "cancels": Jti::generate(), "cancels_exp": NOW + 600,
    });
    let found = run_in(&signed(PayloadType::Cancel, &cancel), false, true, &mut time);
    assert!(found.starts_with("do"), "it is obeyed all the same: {found}");
    assert_eq!(time.verified(), 0);
    cancel["iat"] = json!(NOW + 60);
    run_in(&signed(PayloadType::Cancel, &cancel), false, true, &mut time);
    assert_eq!((time.verified(), time.now(NOW)), (NOW + 60, NOW + 60));
}

#[test]
fn deployments_are_refused_aloud_and_an_agents_own_types_silently() {
    assert_eq!(run(&signed(PayloadType::Deploy, &base()), false), "reject Unsupported");
    assert_eq!(run(&signed(PayloadType::Heartbeat, &base()), false), "type");
    assert_eq!(run(&signed(PayloadType::Cancel, &base()), false), "malformed");
    let mut issuer = base();
    issuer["iss"] = json!("somebody");
    assert_eq!(run(&signed(PayloadType::Command, &issuer), false), "malformed");
    let mut both = base();
    both["argv"] = json!(["true"]);
    assert_eq!(run(&signed(PayloadType::Command, &both), false), "reject Unsupported");
}
