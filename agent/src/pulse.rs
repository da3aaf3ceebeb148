//! Do the loops still turn? Asked by systemd's watchdog, also while the broker is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::agent::Agent;
use crate::limits::{PULSE_EVERY, PULSE_MAX};

/// One loop's sign of life.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    begun: Instant,
    /// Milliseconds after `begun`.
    last: Arc<AtomicU64>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), last: Arc::default() }
    }

    /// The loop turned.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Waits for something that may take any time, and shows meanwhile that the loop turns.
    pub(crate) async fn beat_until<T>(&self, awaited: impl Future<Output = T>) -> T {
        tokio::pin!(awaited);
        loop {
            tokio::select! {
                done = &mut awaited => return done,
                () = tokio::time::sleep(PULSE_EVERY) => self.beat(),
            }
        }
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// Feeds the watchdog, if there is one, while every loop turns.
pub(crate) async fn watchdog(agent: Arc<Agent>, pulses: Vec<(&'static str, Pulse)>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return agent.stop.cancelled().await;
    };
    loop {
        let journal = tokio::time::timeout(PULSE_MAX, agent.journal.ping()).await;
        let stuck: Vec<&str> =
            pulses.iter().filter(|(_, pulse)| pulse.age() > PULSE_MAX).map(|(name, _)| *name).collect();
        if matches!(journal, Ok(Ok(()))) && stuck.is_empty() {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(?stuck, journal = journal.is_ok(), "a loop is stuck; the watchdog is not fed");
        }
        tokio::select! {
            () = tokio::time::sleep(limit / 3) => {}
            () = agent.stop.cancelled() => return,
        }
    }
}

/// What the agent says of itself when the controller sees it; `signet-agent join` waits for this.
pub(crate) const ONLINE: &str = "online";

/// Says in a few words how the agent stands, for `systemctl status`.
pub(crate) fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// Tells systemd. Without it this does nothing.
pub(crate) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_long_still_turns() {
        let pulse = Pulse { begun: Instant::now() - Duration::from_secs(100), last: Arc::default() };
        tokio::time::pause();
        assert_eq!(pulse.beat_until(async { tokio::time::sleep(PULSE_EVERY * 2).await }).await, ());
        assert!(pulse.age() < Duration::from_secs(50));
    }

    #[test]
    fn a_beat_makes_it_young() {
        let pulse = Pulse { begun: Instant::now() - Duration::from_secs(100), last: Arc::default() };
        assert!(pulse.age() >= Duration::from_secs(100));
        pulse.beat();
        assert!(pulse.age() < Duration::from_secs(50));
    }
}
