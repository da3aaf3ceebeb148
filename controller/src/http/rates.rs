//! How many requests one token, and one address, may make: a token bucket each, on each controller for itself.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::accounts::Via;
use crate::error::Error;
use crate::limits::{RATE_BURST_SECONDS, RATE_KEYS_MAX, RATE_TIDY_SECONDS};
use crate::network::network;
use crate::settings;

/// The buckets of a controller.
#[derive(Debug)]
pub struct Rates {
    callers: Option<Buckets<Via>>,
    addresses: Option<Buckets<IpAddr>>,
}

impl Rates {
    /// Full buckets.
    #[must_use]
    pub fn new(settings: settings::Rates) -> Self {
        Self { callers: Buckets::new(settings.caller), addresses: Buckets::new(settings.address) }
    }

    /// Takes one request of a token or log-in.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`].
    pub fn caller(&self, via: &Via) -> Result<(), Error> {
        self.callers.as_ref().map_or(Ok(()), |buckets| buckets.take(via.clone()))
    }

    /// Takes one request from an address, counted by its [`network`].
    ///
    /// # Errors
    /// [`Error::TooManyRequests`].
    pub fn address(&self, peer: IpAddr) -> Result<(), Error> {
        self.addresses.as_ref().map_or(Ok(()), |buckets| buckets.take(network(peer)))
    }
}

/// A bucket for each key, a bounded number of them. Those that are full again are forgotten now and then.
#[derive(Debug)]
struct Buckets<K: Hash + Eq + Clone> {
    /// While all are taken, everybody uses the one of `None`.
    each: DefaultKeyedRateLimiter<Option<K>>,
    clock: DefaultClock,
    began: Instant,
    /// When full ones were forgotten last, in seconds since `began`.
    tidied: AtomicU64,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(per_second: u32) -> Option<Self> {
        let rate = NonZeroU32::new(per_second)?;
        let burst = rate.saturating_mul(RATE_BURST_SECONDS);
        Some(Self {
            each: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)),
            clock: DefaultClock::default(),
            began: Instant::now(),
            tidied: AtomicU64::new(0),
        })
    }

    fn take(&self, key: K) -> Result<(), Error> {
        let seconds = self.began.elapsed().as_secs();
        let tidied = self.tidied.load(Ordering::Relaxed);
        let due = seconds.saturating_sub(tidied) >= RATE_TIDY_SECONDS;
        // Only one of those who see it is due.
        if due && self.tidied.compare_exchange(tidied, seconds, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.each.retain_recent();
        }
        let key = (self.each.len() < RATE_KEYS_MAX).then_some(key);
        self.each.check_key(&key).map_err(|full| {
            let wait = full.wait_time_from(self.clock.now());
            Error::TooManyRequests(whole_seconds(wait))
        })
    }
}

/// At least one, because `Retry-After` has no parts of seconds.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn rates(caller: u32, address: u32) -> Rates {
        Rates::new(settings::Rates { caller, address })
    }

    /// How many of so many requests are taken at once.
    fn taken(count: u32, take: impl Fn() -> Result<(), Error>) -> u32 {
        (0..count).map(|_| u32::from(take().is_ok())).sum()
    }

    #[test]
    fn a_burst_is_taken_and_no_more_of_this_one() {
        let rates = rates(1, 1);
        let (one, other) = (Via::ApiToken(Uuid::new_v4()), Via::Session(Uuid::new_v4()));
        // Requests may be taken while this runs.
        assert!((2..20).contains(&taken(1_000, || rates.caller(&one))));
        assert!(matches!(rates.caller(&one), Err(Error::TooManyRequests(1))));
        assert!(rates.caller(&other).is_ok());
        assert!(rates.address("10.0.0.1".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let rates = rates(0, 1);
        let from = |text: &str| rates.address(text.parse().unwrap());
        assert!(taken(100, || from("2001:db8::1")) < 20);
        assert!(from("2001:db8::ffff").is_err() && from("2001:db8:0:1::1").is_ok());
        // One address has one bucket however it is written.
        assert!(taken(100, || from("::ffff:10.0.0.1")) < 20);
        assert!(from("10.0.0.1").is_err() && from("10.0.0.2").is_ok());
    }

    #[test]
    fn zero_is_no_bound() {
        let rates = rates(0, 0);
        assert_eq!(taken(10_000, || rates.caller(&Via::AdminToken)), 10_000);
        assert_eq!(taken(10_000, || rates.address([10, 0, 0, 1].into())), 10_000);
    }

    #[test]
    fn buckets_are_a_bounded_number() {
        let rates = rates(0, 1);
        let addresses = rates.addresses.as_ref().unwrap();
        for n in 0..u32::try_from(RATE_KEYS_MAX).unwrap() + 1_000 {
            // The newest share one.
            let _answer = rates.address(std::net::Ipv4Addr::from_bits(n).into());
        }
        assert!(addresses.each.len() <= RATE_KEYS_MAX + 1);
    }
}
