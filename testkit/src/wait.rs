//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Asks again and again until the condition gives something, and returns it.
///
/// `what` completes the sentence "waited 10s for …".
///
/// # Panics
/// When it gave nothing within `timeout`.
pub async fn eventually<T>(
    timeout: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(start.elapsed() < timeout, "waited {timeout:?} for {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
