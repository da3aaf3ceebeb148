//! Nothing in a message is believed before this module has said so.
//!
//! The order of the checks is fixed: size → headers → key known → signature → version → type → audience → known `jti`
//! → time window → policy. What fails before the `jti` is known to be new leaves no trace but a count.

use std::collections::BTreeMap;

use signet_common::deploy::Deploy;
use signet_common::envelope::{Audience, Authentic, Claims, Envelope, PayloadType, Refusal, Verified};
use signet_common::ids::{AgentId, Jti};
use signet_common::keyring::Keyring;
use signet_common::limits::{CLOCK_SKEW_SECONDS_MAX, EXPIRY_SECONDS_MAX};
use signet_common::messages::{Cancel, Command, KeyringPush, Rejection, Resume};

use crate::limits::LATE_SECONDS_MAX;
use crate::order::Order;
use crate::policy::{Denied, Here, Policy};
use crate::used::Used;

/// A verified message to this host, with an id that is new.
#[derive(Debug)]
pub enum Instruction {
    /// Start this.
    Order(Order),
    /// End this.
    Cancel(Verified<Cancel>),
    /// Report again.
    Resume(Verified<Resume>),
    /// Believe a new key.
    Keyring(Box<Verified<KeyringPush>>),
}

impl Instruction {
    /// The message's id.
    #[must_use]
    pub fn jti(&self) -> &Jti {
        match self {
            Self::Order(order) => order.jti(),
            Self::Cancel(m) => &m.get().jti,
            Self::Resume(m) => &m.get().jti,
            Self::Keyring(m) => &m.get().jti,
        }
    }
}

/// What came of a message.
#[derive(Debug)]
pub enum Checked {
    /// It is to be done.
    Do(Instruction),
    /// It is the controller's word, and this host refuses it: that makes an event.
    Reject {
        /// Its id.
        jti: Jti,
        /// Until when the id stays known.
        exp: i64,
        /// Why.
        reason: Rejection,
        /// The same for a person.
        detail: String,
    },
    /// It is the controller's word to this host, new, and past its `exp`, but not for long: counted as
    /// [`Refusal::Expired`], and told, so that nobody waits for it.
    Late {
        /// Its id.
        jti: Jti,
        /// When it expired.
        exp: i64,
    },
    /// It is not believed, or has no effect: that is only counted.
    Refuse(Refusal),
}

/// Why a message goes no further.
enum Stop {
    Refuse(Refusal),
    Late(Jti, i64),
    /// Issued just before this log began.
    Early(Jti, i64),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// Messages not believed since this start, by reason.
#[derive(Debug, Clone, Default)]
pub struct Refused([u64; Refusal::ALL.len()]);

impl Refused {
    /// One more.
    pub fn count(&mut self, refusal: Refusal) {
        if let Some(at) = Refusal::ALL.iter().position(|r| *r == refusal) {
            self.0[at] += 1;
        }
    }

    /// As in heartbeats: only reasons that occurred.
    #[must_use]
    pub fn by_label(&self) -> BTreeMap<String, u64> {
        let all = Refusal::ALL.iter().zip(self.0);
        all.filter(|(_, n)| *n > 0).map(|(r, n)| (r.label().to_owned(), n)).collect()
    }
}

/// The agent's time: the later of its clock and the newest `iat` that it has verified. Whole seconds since 1970.
#[derive(Debug, Clone, Copy, Default)]
pub struct Time {
    newest: i64,
    told: i64,
}

impl Time {
    /// What was verified before this start.
    pub fn recall(&mut self, newest: i64) {
        self.newest = self.newest.max(newest);
    }

    /// A verified `iat`, when the clock says `clock`. One that is further ahead than clocks may differ is a controller's
    /// wrong clock: it must not make everything expire here.
    pub fn seen(&mut self, iat: i64, clock: i64) {
        if iat <= clock.max(self.newest).saturating_add(CLOCK_SKEW_SECONDS_MAX) {
            self.recall(iat);
        }
    }

    /// When a hello was answered: its nonces are fresh, so that a clock that is hours behind, as after a long rest without
    /// one, starts nothing late. It counts in this start alone: the controller's clock may be wrong, too.
    pub fn told(&mut self, iat: i64) {
        self.told = self.told.max(iat);
    }

    /// The newest `iat` that was verified: what outlives a restart. The clock doesn't, it may have been ahead.
    #[must_use]
    pub fn verified(self) -> i64 {
        self.newest
    }

    /// Now, when the clock says `clock`, without what a hello told: by this the journal forgets ids, because that outlives
    /// this start. Else a false time could have used statements forgotten, and the next start would not know it.
    #[must_use]
    pub fn lasting(self, clock: i64) -> i64 {
        clock.max(self.newest)
    }

    /// Now, when the clock says `clock`.
    #[must_use]
    pub fn now(self, clock: i64) -> i64 {
        clock.max(self.newest).max(self.told)
    }
}

/// What a check needs to know.
pub struct Context<'a> {
    /// This agent.
    pub me: &'a AgentId,
    /// Whom it believes.
    pub keyring: &'a Keyring,
    /// Everything issued before this is refused.
    pub not_before: i64,
    /// Whether no log came before this one: then what was issued before it certainly never started here.
    pub first_log: bool,
    /// The agent's clock.
    pub clock: i64,
    /// What may run here.
    pub policy: &'a Policy,
    /// As whom a command without `user` runs.
    pub own_user: &'a str,
    /// When the journal's log began, whole seconds since 1970.
    pub log_began: i64,
}

/// What may have been seen before.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// A message, by its id.
    Message(&'a Jti),
    /// An approved statement, in whichever message.
    Statement(Used),
}

/// Checks one message. `known` tells what was seen before; it is asked only about verified messages to this host.
pub fn check(
    envelope: &Envelope,
    context: &Context<'_>,
    time: &mut Time,
    known: impl Fn(Seen<'_>) -> bool,
) -> Checked {
    match authentic(envelope, context, time, |jti| known(Seen::Message(jti))) {
        Ok((message, claims, exp)) => {
            content(&message, claims, exp, context, *time, |used| known(Seen::Statement(used)))
        }
        Err(Stop::Refuse(refusal)) => Checked::Refuse(refusal),
        Err(Stop::Late(jti, exp)) => Checked::Late { jti, exp },
        Err(Stop::Early(jti, exp)) => Checked::Reject {
            jti,
            exp,
            reason: Rejection::NewLog,
            detail: "it was issued before this host's log began".into(),
        },
    }
}

/// Everything up to the time window.
fn authentic(
    envelope: &Envelope,
    context: &Context<'_>,
    time: &mut Time,
    known: impl FnOnce(&Jti) -> bool,
) -> Result<(Authentic, Claims, i64), Stop> {
    let message = envelope.verify(PayloadType::TO_AGENTS, |id| context.keyring.find(id))?;
    let claims = message.claims()?;
    let exp = claims.exp.ok_or(Refusal::Malformed)?;
    let whole = claims.iss == "controller"
        && claims.iat >= 0
        && exp.saturating_sub(claims.iat) <= EXPIRY_SECONDS_MAX.into();
    if !whole {
        return Err(Refusal::Malformed.into());
    }
    message.audience(&claims, &Audience::Agent(context.me.clone()))?;
    if known(&claims.jti) {
        return Err(Refusal::Duplicate.into());
    }
    let now = time.now(context.clock);
    let work = matches!(message.kind(), PayloadType::Command | PayloadType::Deploy);
    if claims.iat < context.not_before {
        // Two controllers' clocks may differ a little. Replays of what is older make no event.
        let skewed = claims.iat >= context.not_before.saturating_sub(CLOCK_SKEW_SECONDS_MAX) && exp >= now;
        let told = work && context.first_log && skewed;
        return Err(if told { Stop::Early(claims.jti, exp) } else { Refusal::Expired.into() });
    }
    if exp < now {
        // Its id may be forgotten by then, and then nothing is known about it any more.
        let told = work && exp.saturating_add(LATE_SECONDS_MAX) >= now;
        return Err(if told { Stop::Late(claims.jti, exp) } else { Refusal::Expired.into() });
    }
    if work && claims.iat > now.saturating_add(CLOCK_SKEW_SECONDS_MAX) {
        return Err(Refusal::Future.into());
    }
    time.seen(claims.iat, context.clock);
    Ok((message, claims, exp))
}

/// Reads what was verified, and asks the policy.
fn content(
    message: &Authentic,
    claims: Claims,
    exp: i64,
    context: &Context<'_>,
    time: Time,
    used: impl FnOnce(Used) -> bool,
) -> Checked {
    let jti = claims.jti;
    let reject = |reason, detail: String| Checked::Reject { jti: jti.clone(), exp, reason, detail };
    let malformed = Checked::Refuse(Refusal::Malformed);
    match message.kind() {
        PayloadType::Command => match message.parse::<Command>() {
            Ok(command) if command.get().command.is_some() == command.get().argv.is_some() => {
                reject(Rejection::Unsupported, "exactly one of command and argv is needed".into())
            }
            Ok(command) => judge(Order::Command(Box::new(command)), exp, context, time, used),
            Err(_) => reject(
                Rejection::Unsupported,
                "the command has a field or a value that this agent's version doesn't know".into(),
            ),
        },
        PayloadType::Deploy => match message.parse::<Deploy>() {
            Ok(deploy) => match deploy.get().check() {
                Ok(()) => judge(Order::Deploy(Box::new(deploy)), exp, context, time, used),
                Err(bad) => reject(Rejection::Unsupported, bad.to_string()),
            },
            Err(_) => reject(
                Rejection::Unsupported,
                "the deployment has a field or a value that this agent's version doesn't know".into(),
            ),
        },
        PayloadType::Cancel => message.parse().map_or(malformed, |m| Checked::Do(Instruction::Cancel(m))),
        PayloadType::Resume => message.parse().map_or(malformed, |m| Checked::Do(Instruction::Resume(m))),
        PayloadType::Keyring => {
            message.parse().map_or(malformed, |m| Checked::Do(Instruction::Keyring(Box::new(m))))
        }
        PayloadType::Report
        | PayloadType::Heartbeat
        | PayloadType::Hello
        | PayloadType::Welcome
        | PayloadType::Leave
        | PayloadType::AuditBlock
        | PayloadType::Bundle => Checked::Refuse(Refusal::Type),
    }
}

/// What becomes of a message that starts something and is whole.
fn judge(
    order: Order,
    exp: i64,
    context: &Context<'_>,
    time: Time,
    used: impl FnOnce(Used) -> bool,
) -> Checked {
    if order.is_early(context.policy, context.clock) {
        return Checked::Refuse(Refusal::Future);
    }
    match may_run(&order, context, time, used) {
        Ok(()) => Checked::Do(Instruction::Order(order)),
        Err(denied) => {
            let jti = order.jti().clone();
            Checked::Reject { jti, exp, reason: Rejection::Policy, detail: denied.to_string() }
        }
    }
}

/// Whether the policy lets it start, and its approval was not used for another.
fn may_run(
    order: &Order,
    context: &Context<'_>,
    time: Time,
    used: impl FnOnce(Used) -> bool,
) -> Result<(), Denied> {
    let Context { me, own_user: user, log_began, .. } = *context;
    order.allowed(context.policy, &Here { me, user, now: time.now(context.clock), log_began })?;
    match order.approval() {
        Some(approval) if used(Used::of(&approval.statement)) => {
            Err(Denied("this approval was used before: it starts something once".into()))
        }
        _ => Ok(()),
    }
}

/// Reads a message from the journal again, after a restart: its signature must still be that of a trusted key.
#[must_use]
pub fn again(envelope: &Envelope, keyring: &Keyring) -> Option<Order> {
    let kinds = [PayloadType::Command, PayloadType::Deploy];
    let message = envelope.verify(&kinds, |id| keyring.find(id)).ok()?;
    match message.kind() {
        PayloadType::Deploy => message.parse().ok().map(|deploy| Order::Deploy(Box::new(deploy))),
        _ => message.parse().ok().map(|command| Order::Command(Box::new(command))),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_turned_back_clock_does_not_revive_what_expired() {
        let mut time = Time::default();
        time.seen(NOW, NOW + 100);
        assert_eq!(time.verified(), NOW, "the clock itself is not remembered");
        assert_eq!(time.now(5), NOW);
        assert_eq!(time.now(NOW + 5), NOW + 5);
    }

    #[test]
    fn what_a_hello_tells_counts_now_and_is_not_remembered() {
        let mut time = Time::default();
        time.seen(NOW + 7_200, NOW);
        assert_eq!(time.now(NOW), NOW, "a stored message's time must be near");
        time.told(NOW + 7_200);
        assert_eq!((time.now(NOW), time.verified(), time.lasting(NOW)), (NOW + 7_200, 0, NOW));
        time.seen(NOW + 7_200, NOW);
        assert_eq!(time.verified(), 0);
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
}
