//! How the targets of a task are cut into batches, and what keeps later ones from going: pure.

/// How many hosts at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// This many.
    Hosts(u32),
    /// This share of the targets, 1 to 100, rounded up.
    Percent(u32),
}

impl BatchSize {
    /// Hosts in a batch of `targets`; at least one.
    #[must_use]
    pub fn hosts(self, targets: usize) -> usize {
        let hosts = match self {
            Self::Hosts(n) => n as usize,
            Self::Percent(p) => (targets * p as usize).div_ceil(100),
        };
        hosts.max(1)
    }
}

/// How a task goes from batch to batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rolling {
    /// Hosts at the beginning that go first, as a batch of their own; 0 = none. Unless each of them succeeds, nothing
    /// else goes.
    pub canary: usize,
    /// Hosts at a time after that; absent = all at once.
    pub batch: Option<BatchSize>,
    /// Seconds from the end of a batch until the next one goes.
    pub pause: u32,
    /// Failures above which nothing more goes.
    pub max_failures: Option<u32>,
}

impl Rolling {
    /// How many targets each batch has, in the order in which they go. A share is one of all targets.
    #[must_use]
    pub fn sizes(&self, targets: usize) -> Vec<usize> {
        let canary = self.canary.min(targets);
        let size = self.batch.map_or(usize::MAX, |batch| batch.hosts(targets));
        let mut left = targets - canary;
        let mut sizes: Vec<usize> = (canary > 0).then_some(canary).into_iter().collect();
        while left > 0 {
            sizes.push(size.min(left));
            left = left.saturating_sub(size);
        }
        sizes
    }

    /// Seconds that pass in pauses from the first batch to the last.
    #[must_use]
    pub fn pauses(&self, targets: usize) -> u64 {
        self.sizes(targets).len().saturating_sub(1) as u64 * u64::from(self.pause)
    }
}

/// Why nothing more of a task goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brake {
    /// These hosts of the canary did not succeed.
    Canary(Vec<String>),
    /// So many failed, and that is more than the budget.
    MaxFailures {
        /// Hosts that failed.
        failed: u64,
        /// How many may.
        budget: u64,
    },
}

impl Brake {
    /// Whether there is a reason to stop: `canaries` of the canary did not succeed, and `failed` hosts in all failed.
    #[must_use]
    pub fn of(canaries: Vec<String>, failed: u64, budget: Option<u64>) -> Option<Self> {
        if !canaries.is_empty() {
            return Some(Self::Canary(canaries));
        }
        budget.filter(|budget| failed > *budget).map(|budget| Self::MaxFailures { failed, budget })
    }

    /// As the reason of a delivery that it held back.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Canary(_) => "canary",
            Self::MaxFailures { .. } => "max_failures",
        }
    }

    /// Whether a cancelled delivery's reason says that it was held back, and not that somebody cancelled it.
    #[must_use]
    pub fn held_back(reason: &str) -> bool {
        matches!(reason, "canary" | "max_failures")
    }
}

/// What happens between two batches of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Between {
    /// The next one goes after so many seconds.
    Pause(u64),
    /// Nothing more goes.
    Stopped {
        /// Why.
        by: Brake,
        /// Hosts that are left out.
        left: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn batches_are_at_least_one_host() {
        assert_eq!(BatchSize::Hosts(3).hosts(10), 3);
        assert_eq!(BatchSize::Percent(25).hosts(10), 3);
        assert_eq!(BatchSize::Percent(1).hosts(10), 1);
        assert_eq!(BatchSize::Percent(100).hosts(10), 10);
    }

    #[test]
    fn a_canary_is_a_batch_of_its_own() {
        let sizes = |canary, batch, targets| Rolling { canary, batch, ..Rolling::default() }.sizes(targets);
        assert_eq!(sizes(0, None, 10), [10]);
        assert_eq!(sizes(1, None, 10), [1, 9]);
        assert_eq!(sizes(2, Some(BatchSize::Hosts(3)), 10), [2, 3, 3, 2]);
        assert_eq!(sizes(1, Some(BatchSize::Percent(50)), 10), [1, 5, 4]);
        assert_eq!(sizes(10, Some(BatchSize::Hosts(3)), 10), [10]);
        assert_eq!(sizes(11, None, 10), [10]);
        assert_eq!(sizes(0, None, 0), [0; 0]);
        let rolling = Rolling { canary: 1, batch: Some(BatchSize::Hosts(3)), pause: 30, max_failures: None };
        assert_eq!((rolling.pauses(10), rolling.pauses(1), rolling.pauses(0)), (90, 0, 0));
    }

    #[test]
    fn the_canary_comes_before_the_budget() {
        assert_eq!(Brake::of(vec!["a".into()], 9, Some(0)), Some(Brake::Canary(vec!["a".into()])));
        assert_eq!(Brake::of(vec![], 1, Some(1)), None);
        assert_eq!(Brake::of(vec![], 9, None), None);
        let spent = Brake::of(vec![], 2, Some(1)).unwrap();
        assert_eq!(spent, Brake::MaxFailures { failed: 2, budget: 1 });
        assert!(Brake::held_back(spent.as_str()) && Brake::held_back(Brake::Canary(vec![]).as_str()));
        assert!(!Brake::held_back("cancelled"));
    }

    fn batch() -> impl Strategy<Value = Option<BatchSize>> {
        prop_oneof![
            Just(None),
            (1_u32..2_000).prop_map(|n| Some(BatchSize::Hosts(n))),
            (1_u32..=100).prop_map(|p| Some(BatchSize::Percent(p))),
        ]
    }

    proptest! {
        /// Every target goes exactly once, the canary first, and no batch is empty or larger than asked.
        #[test]
        fn every_target_goes_once(targets in 0_usize..1_500, canary in 0_usize..1_600, batch in batch(), pause in 0_u32..9) {
            let rolling = Rolling { canary, batch, pause, max_failures: None };
            let sizes = rolling.sizes(targets);
            prop_assert_eq!(sizes.iter().sum::<usize>(), targets);
            prop_assert!(!sizes.contains(&0));
            let rest = if canary > 0 && targets > 0 {
                prop_assert_eq!(sizes[0], canary.min(targets));
                &sizes[1..]
            } else {
                &sizes[..]
            };
            let most = batch.map_or(targets, |b| b.hosts(targets));
            prop_assert!(rest.iter().all(|size| *size <= most));
            prop_assert!(rest.iter().rev().skip(1).all(|size| *size == most), "only the last one may be smaller");
            prop_assert_eq!(rolling.pauses(targets), sizes.len().saturating_sub(1) as u64 * u64::from(pause));
        }
    }
}
