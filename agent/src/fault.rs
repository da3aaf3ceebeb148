//! Named points at which a test lets the program die, as a power cut would.
//!
//! Only with the cargo feature `fault-points`: `SIGNET_FAULT=name[:nth]` aborts at the nth time that the point is
//! reached (the first, unless said). Without the feature there is nothing here.

/// The points, in the order of a command's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A record is written, and not yet synced.
    BeforeSync,
    /// A batch is synced, and nobody knows it yet.
    AfterSync,
    /// `accepted` is synced, and the message not yet acknowledged.
    BeforeAck,
    /// The message is acknowledged.
    AfterAck,
    /// `started` is synced, and the process not yet spawned.
    BeforeSpawn,
    /// The process runs.
    AfterSpawn,
    /// The process is over, and its result not yet written.
    BeforeResult,
    /// The result is synced.
    AfterResult,
    /// A report is signed, and not yet published.
    BeforeReport,
    /// A report is confirmed.
    AfterReport,
}

impl Point {
    /// Every point.
    pub const ALL: [Self; 10] = [
        Self::BeforeSync,
        Self::AfterSync,
        Self::BeforeAck,
        Self::AfterAck,
        Self::BeforeSpawn,
        Self::AfterSpawn,
        Self::BeforeResult,
        Self::AfterResult,
        Self::BeforeReport,
        Self::AfterReport,
    ];

    /// The name as in `SIGNET_FAULT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeSync => "agent-before-sync",
            Self::AfterSync => "agent-after-sync",
            Self::BeforeAck => "agent-before-ack",
            Self::AfterAck => "agent-after-ack",
            Self::BeforeSpawn => "agent-before-spawn",
            Self::AfterSpawn => "agent-after-spawn",
            Self::BeforeResult => "agent-before-result",
            Self::AfterResult => "agent-after-result",
            Self::BeforeReport => "agent-before-report",
            Self::AfterReport => "agent-after-report",
        }
    }
}

/// Dies here if the test wants it.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn hit(_point: Point) {}

/// Dies here if the test wants it.
#[cfg(feature = "fault-points")]
pub fn hit(point: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    static WANTED: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("SIGNET_FAULT").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicI64::new(nth.parse().ok()?)))
    });
    if let Some((name, left)) = wanted
        && name == point.name()
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        std::process::abort();
    }
}
