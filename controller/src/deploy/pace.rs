//! How often what is under way is looked at, and what failed is tried again: the longer it takes already, the less a little
//! more of waiting is.

use std::time::Duration;

use tokio::time::Instant;

use super::stop::Stop;
use crate::error::{Error, Result};
use crate::limits::{
    JOB_LOOK_MILLISECONDS_MAX, JOB_LOOK_MILLISECONDS_MIN, JOB_LOOK_PART, JOB_LOOK_PATIENT_MILLISECONDS_MAX,
};

/// Since when something is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    since: Instant,
    most: u64,
}

impl Pace {
    /// From now on.
    pub(super) fn begin() -> Self {
        Self { since: Instant::now(), most: JOB_LOOK_MILLISECONDS_MAX }
    }

    /// From now on, for what may take hours.
    pub(super) fn patient() -> Self {
        Self { most: JOB_LOOK_PATIENT_MILLISECONDS_MAX, ..Self::begin() }
    }

    /// Sleeps until it is time for the next look.
    pub(super) async fn next(self) {
        tokio::time::sleep(pause(self.since.elapsed(), self.most)).await;
    }
}

/// Does something until the database lets it: whether a commit without an answer was one is only known by looking again.
/// `None` when the job is not this controller's to go on with any more.
pub(super) async fn again<T, F>(job: i64, stop: &Stop, what: impl Fn() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<T>>,
{
    let pace = Pace::begin();
    loop {
        match what().await {
            Err(Error::Store(error)) if error.passes() => {
                tracing::warn!(%error, job, "a job's hosts could not be seen to; it is tried again");
            }
            done => return done.map(Some),
        }
        if stop.is_anothers() {
            return Ok(None);
        }
        pace.next().await;
    }
}

fn pause(waited: Duration, most: u64) -> Duration {
    let [least, most] = [JOB_LOOK_MILLISECONDS_MIN, most].map(Duration::from_millis);
    (waited / JOB_LOOK_PART).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rarer() {
        let looks = |limit: Duration| {
            let (mut waited, mut looks) = (Duration::ZERO, 0_u64);
            while waited < limit {
                waited += pause(waited, JOB_LOOK_MILLISECONDS_MAX);
                looks += 1;
            }
            looks
        };
        assert_eq!(
            pause(Duration::ZERO, JOB_LOOK_MILLISECONDS_MAX),
            Duration::from_millis(JOB_LOOK_MILLISECONDS_MIN)
        );
        for most in [JOB_LOOK_MILLISECONDS_MAX, JOB_LOOK_PATIENT_MILLISECONDS_MAX] {
            assert_eq!(pause(Duration::from_secs(3_600), most), Duration::from_millis(most));
        }
        assert!(
            looks(Duration::from_secs(60)) * JOB_LOOK_MILLISECONDS_MAX < 78_000,
            "hardly more than always so"
        );
    }
}
