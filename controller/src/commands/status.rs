//! How deliveries add up to a task's status, and what a target's end is as an exit code: pure functions.

use super::model::TaskStatus;
use crate::dispatch::model::{Delivery, State};

/// What becomes of a task's targets that were not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// They get it as soon as they are there.
    Free,
    /// Dispatch is paused, or the bus is down.
    Stopped,
    /// They wait for people's word.
    Awaits,
}

impl Sending {
    /// `can_send`: the bus is up and dispatch not paused.
    pub(super) const fn of(held: bool, can_send: bool) -> Self {
        match (held, can_send) {
            (true, _) => Self::Awaits,
            (false, true) => Self::Free,
            (false, false) => Self::Stopped,
        }
    }
}

/// A task's status from how many targets are in which state, and what becomes of those that were not sent.
#[must_use]
pub(super) fn status(tally: &[(State, u64)], sending: Sending) -> TaskStatus {
    let has = |test: fn(State) -> bool| tally.iter().any(|(s, n)| *n > 0 && test(*s));
    let only = |state: State| tally.iter().all(|(s, n)| *n == 0 || *s == state);
    if !has(|s| !s.is_final()) {
        return match () {
            () if only(State::Rejected) => TaskStatus::Rejected,
            () if only(State::Expired) => TaskStatus::Expired,
            () if only(State::Cancelled) => TaskStatus::Cancelled,
            () => TaskStatus::Done,
        };
    }
    let taken = |s: State| {
        matches!(
            s,
            State::Accepted
                | State::Running
                | State::Succeeded
                | State::Failed
                | State::TimedOut
                | State::Interrupted
        )
    };
    match sending {
        _ if has(taken) => TaskStatus::Received,
        Sending::Awaits => TaskStatus::AwaitingApproval,
        Sending::Free => TaskStatus::Sent,
        Sending::Stopped => TaskStatus::Pending,
    }
}

/// The document's exit code of an ended target: the process's, 128 + n for signal n, -2 for a time-out, else -1.
#[must_use]
pub(super) fn exit_code(delivery: &Delivery) -> i64 {
    match (delivery.state, delivery.exit_code, delivery.signal) {
        (State::TimedOut, _, _) => -2,
        (State::Succeeded | State::Failed, Some(code), _) => i64::from(code),
        (State::Succeeded | State::Failed, None, Some(signal)) => 128 + i64::from(signal),
        _ => -1,
    }
}

/// What the document's `stderr` ends with: why there is no exit code of the command's own.
#[must_use]
pub(super) fn stderr_suffix(delivery: &Delivery) -> Option<String> {
    match delivery.state {
        State::TimedOut => Some("\nCommand timed out".to_owned()),
        State::Succeeded | State::Failed => None,
        state if delivery.reason.is_empty() => Some(state.as_str().to_owned()),
        _ => Some(delivery.reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(states: &[State]) -> Vec<(State, u64)> {
        states.iter().map(|s| (*s, 1)).collect()
    }

    #[test]
    fn a_status_sums_up_its_targets() {
        use State as S;
        use TaskStatus as T;
        let cases: &[(&[State], TaskStatus)] = &[
            (&[S::Waiting], T::Sent),
            (&[S::Waiting, S::Sent], T::Sent),
            (&[S::Sent, S::Rejected], T::Sent),
            (&[S::Waiting, S::Accepted], T::Received),
            (&[S::Running], T::Received),
            (&[S::Sent, S::Succeeded], T::Received),
            (&[S::Rejected, S::Rejected], T::Rejected),
            (&[S::Expired], T::Expired),
            (&[S::Cancelled], T::Cancelled),
            (&[S::Cancelled, S::Expired], T::Done),
            (&[S::Succeeded, S::Lost], T::Done),
        ];
        for (states, expected) in cases {
            assert_eq!(status(&tally(states), Sending::Free), *expected, "{states:?}");
        }
        assert_eq!(status(&tally(&[S::Waiting]), Sending::Stopped), T::Pending);
        assert_eq!(status(&tally(&[S::Running]), Sending::Stopped), T::Received);
        assert_eq!(status(&tally(&[S::Waiting, S::Rejected]), Sending::Awaits), T::AwaitingApproval);
        assert_eq!(status(&tally(&[S::Rejected]), Sending::Awaits), T::Rejected);
    }

    #[test]
    fn exit_codes_are_never_null() {
        let end = |state, exit_code, signal| Delivery { state, exit_code, signal, ..Delivery::waiting() };
        assert_eq!(exit_code(&end(State::Succeeded, Some(0), None)), 0);
        assert_eq!(exit_code(&end(State::Failed, Some(3), None)), 3);
        assert_eq!(exit_code(&end(State::Failed, None, Some(9))), 137);
        assert_eq!(exit_code(&end(State::TimedOut, None, Some(15))), -2);
        assert_eq!(exit_code(&end(State::Lost, None, None)), -1);
        assert_eq!(stderr_suffix(&end(State::TimedOut, None, None)).unwrap(), "\nCommand timed out");
        assert_eq!(stderr_suffix(&end(State::Lost, None, None)).unwrap(), "lost");
    }
}
