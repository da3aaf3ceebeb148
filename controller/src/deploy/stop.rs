//! Why the run of a job is to end before its time, and how those that are at work on it hear that.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::model::{End, Job, TargetStatus};
use super::rolling;

/// Why a run is to end before its time; a later one here outweighs the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It took too long.
    TimedOut,
    /// Somebody asked for that.
    Cancelled,
    /// This controller stops.
    Stopping,
    /// Another controller took it for dead.
    Taken,
}

impl Reason {
    /// In words for people.
    pub(super) fn why(self, job: &Job) -> String {
        match self {
            Self::Cancelled => "the job was cancelled".into(),
            Self::TimedOut => format!("the job was not done within {} s", rolling::limit(job)),
            Self::Stopping => "the controller was stopped while the job ran".into(),
            Self::Taken => LOST.into(),
        }
    }

    /// What it means for a host that had no end yet.
    pub(super) fn end(self, job: &Job) -> End {
        let status = if self == Self::Cancelled { TargetStatus::Cancelled } else { TargetStatus::Failed };
        End::bad(status, self.why(job))
    }
}

/// What is said of a job whose controller is gone.
pub(super) const LOST: &str = "the controller that ran the job is gone; it may have been deployed";

/// Ends a run before its time. The weightiest reason counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    token: CancellationToken,
    reason: Arc<Mutex<Option<Reason>>>,
}

impl Stop {
    pub(super) fn stop(&self, reason: Reason) {
        let mut known = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(Some(reason));
        self.token.cancel();
    }

    /// Why, once it is so.
    pub(super) fn reason(&self) -> Option<Reason> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the job is another controller's to go on with.
    pub(super) fn is_anothers(&self) -> bool {
        matches!(self.reason(), Some(Reason::Stopping | Reason::Taken))
    }

    /// Waits until it is so.
    pub(super) async fn stopped(&self) {
        self.token.cancelled().await;
    }
}
