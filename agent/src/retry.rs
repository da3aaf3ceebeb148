//! Pauses between tries: doubled up to a bound, and jittered, so that a fleet does not come back all at once.

use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause: half of it to all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Half of it to all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(8));
        let mut backoff = Backoff::new(first, longest);
        for whole in [1, 2, 4, 8, 8] {
            let whole = Duration::from_secs(whole);
            let pause = backoff.next();
            assert!(pause >= whole / 2 && pause <= whole);
        }
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
