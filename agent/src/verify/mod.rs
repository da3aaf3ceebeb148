//! Nothing in a message is believed before this module has said so.
//!
//! The order of the checks is fixed: size → headers → key known → signature → version → type → audience → known `jti`
//! → time window → policy. What fails before the `jti` is known to be new leaves no trace but a count. Up to the time window
//! [`authentic`](mod@authentic) decides, from then on [`content`](mod@content).

mod authentic;
mod content;
mod time;

use std::collections::BTreeMap;

use signet_common::envelope::{Envelope, PayloadType, Refusal, Verified};
use signet_common::ids::{AgentId, Jti};
use signet_common::keyring::Keyring;
use signet_common::messages::{Cancel, KeyringPush, Rejection, Resume};

use self::authentic::{Stop, authentic};
use self::content::content;
pub use self::time::Time;
use crate::order::Order;
use crate::policy::Policy;
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
mod tests;
