//! Named points at which a test lets a program die, as `kill -9` would, or stand still.
//!
//! Only with the cargo feature `fault-points`: `SIGNET_FAULT=name[:nth[:stop]]` aborts the program at the nth time that
//! the point is reached (the first, unless said), or stops it there as SIGSTOP does. Without the feature, which only
//! tests switch on, there is nothing here.

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal,)+) => {
        /// The points, in the order of a command's life. The name begins with the program that dies.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $($(#[doc = $doc])+ $point,)+
        }

        impl Point {
            /// Every point.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// The name as in `SIGNET_FAULT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

points! {
    /// A request's task, message and deliveries are written, and not committed.
    ControllerBeforeCommit = "controller-before-commit",
    /// They are committed, and nobody knows it yet.
    ControllerAfterCommit = "controller-after-commit",
    /// A message to an agent is about to be published.
    ControllerBeforePublish = "controller-before-publish",
    /// It is handed to the broker's connection, and not confirmed.
    ControllerAfterPublish = "controller-after-publish",
    /// The broker has answered for it.
    ControllerAfterConfirm = "controller-after-confirm",
    /// Records are written to the journal, and not synced.
    AgentBeforeSync = "agent-before-sync",
    /// They are synced, and nobody knows it yet.
    AgentAfterSync = "agent-after-sync",
    /// `accepted` is synced, and the message not acknowledged.
    AgentBeforeAck = "agent-before-ack",
    /// The message is acknowledged.
    AgentAfterAck = "agent-after-ack",
    /// `started` is synced, and the process not spawned.
    AgentBeforeSpawn = "agent-before-spawn",
    /// The process runs.
    AgentAfterSpawn = "agent-after-spawn",
    /// The process is over, and its result not written.
    AgentBeforeResult = "agent-before-result",
    /// The result is synced.
    AgentAfterResult = "agent-after-result",
    /// A report is signed, and not published.
    AgentBeforeReport = "agent-before-report",
    /// The broker has confirmed it.
    AgentAfterReport = "agent-after-report",
    /// Reports are verified, and nothing of them is stored.
    ControllerBeforeIntake = "controller-before-intake",
    /// They are stored, and not committed.
    ControllerBeforeIntakeCommit = "controller-before-intake-commit",
    /// They are committed, and not acknowledged.
    ControllerAfterIntakeCommit = "controller-after-intake-commit",
    /// They are acknowledged.
    ControllerAfterIntakeAck = "controller-after-intake-ack",
}

/// Dies here if the test wants it.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn hit(_point: Point) {}

#[cfg(feature = "fault-points")]
pub use wanted::hit;

#[cfg(feature = "fault-points")]
mod wanted {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, raise};

    use super::Point;

    /// What `SIGNET_FAULT` asks for.
    struct Wanted {
        point: Point,
        nth: u32,
        stop: bool,
        reached: AtomicU32,
    }

    static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(|| parse(&std::env::var("SIGNET_FAULT").ok()?));

    /// `None` for what makes no sense: then the test waits in vain for the program's death, and says so.
    fn parse(text: &str) -> Option<Wanted> {
        let mut parts = text.split(':');
        let name = parts.next()?;
        let point = Point::ALL.iter().copied().find(|p| p.name() == name)?;
        let nth = parts.next().map_or(Ok(1), str::parse).ok()?;
        let stop = match parts.next() {
            None => false,
            Some("stop") => true,
            Some(_) => return None,
        };
        Some(Wanted { point, nth, stop, reached: AtomicU32::new(0) })
    }

    /// Dies here, or stands still, if the test wants it.
    pub fn hit(point: Point) {
        let Some(wanted) = WANTED.as_ref().filter(|wanted| wanted.point == point) else { return };
        if wanted.reached.fetch_add(1, Ordering::SeqCst) + 1 != wanted.nth {
            return;
        }
        tracing::warn!(point = point.name(), stop = wanted.stop, "a point of SIGNET_FAULT is reached");
        if !wanted.stop || raise(Signal::SIGSTOP).is_err() {
            std::process::abort();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_asked_for() {
            let read = |text| parse(text).map(|w| (w.point, w.nth, w.stop));
            assert_eq!(read("agent-before-ack"), Some((Point::AgentBeforeAck, 1, false)));
            assert_eq!(read("agent-before-ack:2"), Some((Point::AgentBeforeAck, 2, false)));
            assert_eq!(read("controller-after-commit:3:stop"), Some((Point::ControllerAfterCommit, 3, true)));
            for nonsense in ["", "agent", "agent-before-ack:", "agent-before-ack:x", "agent-before-ack:1:go"]
            {
                assert_eq!(read(nonsense), None, "{nonsense}");
            }
        }
    }
}
