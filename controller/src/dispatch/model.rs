//! Deliveries: one per message and host, one state machine, as pure functions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use signet_common::Jti;
use signet_common::messages::{CommandResult, Outcome, Rejection};
use signet_common::time::Micros;

/// Where a delivery stands. Moves forward only: waiting → sent → accepted → running → one of the ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Certainly never published: a cancel removes it for certain.
    Waiting,
    /// Published, or about to be.
    Sent,
    /// In the agent's journal.
    Accepted,
    /// Started.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or a signal.
    Failed,
    /// Ended at its `timeout`.
    TimedOut,
    /// Ended on an admin's word, or by the failure budget or the canary.
    Cancelled,
    /// Refused by the agent, or never sent and never to be.
    Rejected,
    /// It ran when the agent stopped or the host rebooted.
    Interrupted,
    /// Never started before its `exp`.
    Expired,
    /// No word before its deadline; it may have run.
    Lost,
}

impl State {
    /// Every state, in order.
    pub const ALL: [Self; 12] = [
        Self::Waiting,
        Self::Sent,
        Self::Accepted,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Cancelled,
        Self::Rejected,
        Self::Interrupted,
        Self::Expired,
        Self::Lost,
    ];
    /// The states that are not ends.
    pub const OPEN: [Self; 4] = [Self::Waiting, Self::Sent, Self::Accepted, Self::Running];

    /// As on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Interrupted => "interrupted",
            Self::Expired => "expired",
            Self::Lost => "lost",
        }
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Sent | Self::Accepted | Self::Running)
    }

    /// Whether it counts against `max_failures`: any end but `succeeded` and `cancelled`.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.is_final() && !matches!(self, Self::Succeeded | Self::Cancelled)
    }

    /// How far along: all ends are equally far.
    const fn rank(self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Sent => 1,
            Self::Accepted => 2,
            Self::Running => 3,
            _ => 4,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| format!("unknown state {text}"))
    }
}

/// The changing part of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Where it stands.
    pub state: State,
    /// Why, for a person; empty when the state says it all.
    pub reason: String,
    /// Whether the end is the controller's inference and not the agent's word.
    pub inferred: bool,
    /// A cancel was asked for.
    pub cancel_at: Option<Micros>,
    /// Taken into the agent's journal, by the agent's clock.
    pub accepted_at: Option<Micros>,
    /// Started, by the agent's clock.
    pub started_at: Option<Micros>,
    /// Ended: by the agent's clock, or by the controller's where it inferred the end.
    pub finished_at: Option<Micros>,
    /// The process's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The agent's report that told its end.
    pub report: Option<Jti>,
}

impl Delivery {
    /// A new delivery, not published.
    #[must_use]
    pub fn waiting() -> Self {
        Self {
            state: State::Waiting,
            reason: String::new(),
            inferred: false,
            cancel_at: None,
            accepted_at: None,
            started_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            report: None,
        }
    }

    /// A delivery that ended before it began: a server without an agent.
    #[must_use]
    pub fn refused(reason: &str, now: Micros) -> Self {
        let ended = Self { state: State::Rejected, reason: reason.to_owned(), ..Self::waiting() };
        Self { finished_at: Some(now), ..ended }
    }
}

/// What can happen to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening<'a> {
    /// It is about to be published for the first time.
    Publish,
    /// The agent's word: it is in the journal.
    Accepted(Micros),
    /// The agent's word: it is being started.
    Started(Micros),
    /// The agent's word: it is over.
    Result(Micros, &'a CommandResult),
    /// The agent's word: it was refused.
    Rejected(Micros, Rejection, &'a str),
    /// An admin cancels.
    Cancel,
    /// Nothing more of its task goes, and this one was not released; the text says why.
    HeldBack(&'static str),
    /// Its deadline has passed; the text says when the host was last heard of.
    Deadline(&'a str),
    /// Nobody, or too few, approved it in time.
    ApprovalDue,
    /// Somebody refused it before it was sent; the text says who and why.
    NotApproved(&'a str),
    /// The host can't answer for it any more: a new log, rolled back, removed. The text says which.
    HostGone(&'a str),
    /// The host's key was replaced: nothing new goes to the old one, but its reports still count.
    KeyReplaced,
}

/// What `happening` makes of a delivery, or `None` when it changes nothing (a repetition, or news from before the end).
///
/// Only an agent's own result or refusal replaces an end that was inferred.
#[must_use]
pub fn apply(delivery: &Delivery, happening: &Happening<'_>, now: Micros) -> Option<Delivery> {
    let open = !delivery.state.is_final();
    let may_end = open || delivery.inferred;
    let forward = |to: State| open && to.rank() > delivery.state.rank();
    let infer = |state: State, reason: &str| Delivery {
        state,
        reason: reason.to_owned(),
        inferred: true,
        finished_at: Some(now),
        ..delivery.clone()
    };
    // What has started can't have been refused or have expired: such a word comes from a journal that was put back.
    let never_started = match happening {
        Happening::Rejected(_, rejection, _) => *rejection != Rejection::Exec,
        Happening::Result(_, result) => result.outcome == Outcome::Expired,
        _ => false,
    };
    if never_started && delivery.started_at.is_some() {
        return None;
    }
    match *happening {
        Happening::Publish => {
            forward(State::Sent).then(|| Delivery { state: State::Sent, ..delivery.clone() })
        }
        Happening::Accepted(at) => forward(State::Accepted).then(|| Delivery {
            state: State::Accepted,
            accepted_at: Some(at),
            ..delivery.clone()
        }),
        Happening::Started(at) => forward(State::Running).then(|| Delivery {
            state: State::Running,
            started_at: Some(at),
            ..delivery.clone()
        }),
        Happening::Result(at, result) => may_end.then(|| ended(delivery, at, result)),
        Happening::Rejected(at, rejection, detail) => may_end.then(|| Delivery {
            state: State::Rejected,
            reason: rejected(rejection, detail),
            inferred: false,
            finished_at: Some(at),
            ..delivery.clone()
        }),
        Happening::Cancel if delivery.state == State::Waiting => Some(infer(State::Cancelled, "cancelled")),
        Happening::Cancel => (open && delivery.cancel_at.is_none())
            .then(|| Delivery { cancel_at: Some(now), ..delivery.clone() }),
        Happening::HeldBack(why) => (delivery.state == State::Waiting).then(|| infer(State::Cancelled, why)),
        Happening::Deadline(last_word) => open.then(|| match delivery.state {
            State::Waiting => infer(State::Expired, "never sent before it expired"),
            _ => infer(State::Lost, &format!("no word since {last_word}; it may have run")),
        }),
        Happening::ApprovalDue => {
            (delivery.state == State::Waiting).then(|| infer(State::Expired, "not approved in time"))
        }
        Happening::NotApproved(why) => {
            (delivery.state == State::Waiting).then(|| infer(State::Rejected, &clip(why)))
        }
        Happening::HostGone(why) => open.then(|| match delivery.state {
            State::Waiting => infer(State::Rejected, why),
            _ => infer(State::Lost, &format!("{why}; it may have run")),
        }),
        Happening::KeyReplaced => {
            (delivery.state == State::Waiting).then(|| infer(State::Rejected, "key replaced"))
        }
    }
}

fn ended(delivery: &Delivery, at: Micros, result: &CommandResult) -> Delivery {
    let state = match result.outcome {
        Outcome::Succeeded => State::Succeeded,
        Outcome::Failed => State::Failed,
        Outcome::TimedOut => State::TimedOut,
        Outcome::Cancelled => State::Cancelled,
        Outcome::Interrupted => State::Interrupted,
        Outcome::Expired => State::Expired,
    };
    Delivery {
        state,
        reason: clip(result.reason.as_deref().unwrap_or_default()),
        inferred: false,
        finished_at: Some(at),
        exit_code: result.exit_code,
        signal: result.signal,
        ..delivery.clone()
    }
}

fn rejected(rejection: Rejection, detail: &str) -> String {
    let kind = match rejection {
        Rejection::Policy => "policy",
        Rejection::Unsupported => "unsupported",
        Rejection::Exec => "exec",
        Rejection::NewLog => "new log",
    };
    clip(&if detail.is_empty() { kind.to_owned() } else { format!("{kind}: {detail}") })
}

/// Reasons come from agents; the column holds 255 characters.
fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn result(outcome: Outcome) -> CommandResult {
        CommandResult {
            outcome,
            reason: None,
            exit_code: Some(0),
            signal: None,
            stdout: vec![],
            stderr: vec![],
            stdout_summary: Default::default(),
            stderr_summary: Default::default(),
            killed: 0,
            duration_ms: 1,
            deploy: None,
        }
    }

    const NOW: Micros = Micros(7);

    #[test]
    fn a_waiting_delivery_is_cancelled_for_certain_and_a_sent_one_only_asked() {
        let waiting = Delivery::waiting();
        assert_eq!(apply(&waiting, &Happening::Cancel, NOW).unwrap().state, State::Cancelled);
        let sent = apply(&waiting, &Happening::Publish, NOW).unwrap();
        let asked = apply(&sent, &Happening::Cancel, NOW).unwrap();
        assert_eq!((asked.state, asked.cancel_at), (State::Sent, Some(NOW)));
        assert_eq!(apply(&asked, &Happening::Cancel, NOW), None, "asked once");
    }

    #[test]
    fn only_the_agents_own_end_replaces_an_inferred_one() {
        let sent = apply(&Delivery::waiting(), &Happening::Publish, NOW).unwrap();
        let lost = apply(&sent, &Happening::Deadline("never"), NOW).unwrap();
        assert_eq!((lost.state, lost.inferred), (State::Lost, true));
        assert_eq!(apply(&lost, &Happening::Started(NOW), NOW), None);
        assert_eq!(apply(&lost, &Happening::HostGone("new log"), NOW), None);
        let true_end = apply(&lost, &Happening::Result(NOW, &result(Outcome::Succeeded)), NOW).unwrap();
        assert_eq!((true_end.state, true_end.inferred), (State::Succeeded, false));
        assert_eq!(apply(&true_end, &Happening::Result(NOW, &result(Outcome::Failed)), NOW), None);
    }

    #[test]
    fn what_has_started_was_neither_refused_nor_expired() {
        let sent = apply(&Delivery::waiting(), &Happening::Publish, NOW).unwrap();
        let running = apply(&sent, &Happening::Started(NOW), NOW).unwrap();
        let lost = apply(&running, &Happening::HostGone("rolled back"), NOW).unwrap();
        let expired = result(Outcome::Expired);
        for delivery in [&running, &lost] {
            for word in [Rejection::Policy, Rejection::Unsupported, Rejection::NewLog] {
                assert_eq!(apply(delivery, &Happening::Rejected(NOW, word, ""), NOW), None);
            }
            assert_eq!(apply(delivery, &Happening::Result(NOW, &expired), NOW), None);
            let exec = apply(delivery, &Happening::Rejected(NOW, Rejection::Exec, ""), NOW).unwrap();
            assert_eq!(exec.state, State::Rejected, "`started` stands in the journal before the exec");
        }
    }

    #[test]
    fn the_deadline_tells_never_sent_from_perhaps_run() {
        let waiting = Delivery::waiting();
        assert_eq!(apply(&waiting, &Happening::Deadline("x"), NOW).unwrap().state, State::Expired);
        let sent = apply(&waiting, &Happening::Publish, NOW).unwrap();
        let lost = apply(&sent, &Happening::Deadline("x"), NOW).unwrap();
        assert_eq!(lost.reason, "no word since x; it may have run");
    }

    proptest! {
        /// Whatever happens in whatever order: forward only, and an agent's end stays.
        #[test]
        fn never_backward(steps in proptest::collection::vec(0_usize..10, 0..40)) {
            let ok = result(Outcome::Succeeded);
            let bad = result(Outcome::Failed);
            let mut delivery = Delivery::waiting();
            for step in steps {
                let happening = match step {
                    0 => Happening::Publish,
                    1 => Happening::Accepted(NOW),
                    2 => Happening::Started(NOW),
                    3 => Happening::Result(NOW, &ok),
                    4 => Happening::Result(NOW, &bad),
                    5 => Happening::Rejected(NOW, Rejection::Policy, "no"),
                    6 => Happening::Cancel,
                    7 => Happening::HeldBack("max_failures"),
                    8 => Happening::Deadline("x"),
                    _ => Happening::HostGone("y"),
                };
                if let Some(next) = apply(&delivery, &happening, NOW) {
                    prop_assert!(next.state.rank() >= delivery.state.rank());
                    prop_assert!(!delivery.state.is_final() || delivery.inferred, "an agent's end was replaced");
                    prop_assert_eq!(next.state.is_final(), next.finished_at.is_some());
                    delivery = next;
                }
            }
        }
    }
}
