//! What time it is, by the clock and by what was verified.

use signet_common::limits::CLOCK_SKEW_SECONDS_MAX;

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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

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
}
