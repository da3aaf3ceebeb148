//! How long somebody has to wait after failed log-ins: a growing delay, counted for an account from an address and for
//! an address.

use signet_common::time::Micros;

use crate::limits::{
    LOGIN_DELAY_KNOWN_SECONDS_MAX, LOGIN_DELAY_SECONDS_MAX, LOGIN_FAILURES_FREE, LOGIN_FAILURES_FREE_ADDRESS,
    LOGIN_FORGET_SECONDS,
};

/// What failures are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// One account from one address.
    AccountFrom,
    /// One address, whatever the account.
    Address,
}

/// What is known of a subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    pub(super) failures: i64,
    pub(super) last_failure: Micros,
    /// Somebody logged in from here before.
    pub(super) known: bool,
}

impl Attempts {
    /// The failures that still count.
    pub(super) fn counted(&self, now: Micros) -> i64 {
        let forgotten = self.last_failure.plus_seconds(LOGIN_FORGET_SECONDS) <= now;
        if forgotten { 0 } else { self.failures }
    }

    /// Seconds until the next attempt is looked at; 0 = now.
    pub(super) fn wait(&self, subject: Subject, now: Micros) -> u64 {
        let free = match subject {
            Subject::AccountFrom => LOGIN_FAILURES_FREE,
            Subject::Address => LOGIN_FAILURES_FREE_ADDRESS,
        };
        let above = self.counted(now) - free;
        if above < 0 {
            return 0;
        }
        let most = if self.known { LOGIN_DELAY_KNOWN_SECONDS_MAX } else { LOGIN_DELAY_SECONDS_MAX };
        let delay =
            1_i64.checked_shl(u32::try_from(above).unwrap_or(u32::MAX)).filter(|d| *d > 0).unwrap_or(most);
        let left = self.last_failure.plus_seconds(delay.min(most)).0 - now.0;
        u64::try_from(left).map_or(0, |micros| micros.div_ceil(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_and_is_bounded() {
        let now = Micros::from_seconds(1_000_000);
        let wait =
            |failures, known, subject| Attempts { failures, last_failure: now, known }.wait(subject, now);
        use Subject::{AccountFrom, Address};
        assert_eq!(wait(0, false, AccountFrom), 0);
        assert_eq!(wait(LOGIN_FAILURES_FREE - 1, false, AccountFrom), 0);
        assert_eq!(wait(LOGIN_FAILURES_FREE, false, AccountFrom), 1);
        assert_eq!(wait(LOGIN_FAILURES_FREE + 3, false, AccountFrom), 8);
        for failures in [40, 63, 64, 70, 1_000_000, i64::MAX] {
            assert_eq!(wait(failures, false, AccountFrom), LOGIN_DELAY_SECONDS_MAX as u64, "{failures}");
            assert!(wait(failures, true, AccountFrom) <= 90 && wait(failures, true, Address) <= 90);
        }
        assert_eq!(wait(LOGIN_FAILURES_FREE_ADDRESS - 1, false, Address), 0);
        assert!(wait(100, false, Address) > 0);
        let old = Attempts { failures: 50, last_failure: now, known: false };
        assert_eq!(old.wait(AccountFrom, now.plus_seconds(LOGIN_FORGET_SECONDS)), 0);
    }
}
