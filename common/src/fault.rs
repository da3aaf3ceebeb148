//! Named points at which a test lets a program die, as `kill -9` would, or stand still.
//!
//! Only with the cargo feature `fault-points`: `SIGNET_FAULT=name[:nth[:stop]]` aborts the program at the nth time that
//! the point is reached (the first, unless said), or stops it there as SIGSTOP does. Without the feature, which only
//! tests switch on, there is nothing here.

/// A place at which a program can be made to die.
pub trait Place: Copy {
    /// The name as in `SIGNET_FAULT`.
    fn place(self) -> &'static str;
}

macro_rules! points {
    ($(#[doc = $about:literal])+ $points:ident: $($(#[doc = $doc:literal])+ $point:ident = $name:literal,)+) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $points {
            $($(#[doc = $doc])+ $point,)+
        }

        impl Place for $points {
            fn place(self) -> &'static str {
                self.name()
            }
        }

        impl $points {
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
    /// The points, in the order of a command's life. The name begins with the program that dies.
    Point:
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

points! {
    /// The points of a job with agents, in the order of its life before its hosts are sent the deployment.
    JobPoint:
    /// The commit that every host gets is noted, and nothing is sent.
    Pinned = "controller-job-pinned",
    /// Messages to its hosts are written with what its log says of them, and not committed.
    Sending = "controller-job-sending",
    /// Every host has the commit to which it goes back, and the deployment is not written.
    Asked = "controller-job-asked",
}

points! {
    /// The steps of a deployment with releases, in their order; one that is in place takes some of them.
    DeployPoint:
    /// It is known where the path leads, and nothing was made there.
    Resolved = "deploy-resolved",
    /// The path is locked, and nothing of it was looked at.
    Locked = "deploy-locked",
    /// The commit is in the mirror.
    Fetched = "deploy-fetched",
    /// Its files are in a new release.
    CheckedOut = "deploy-checked-out",
    /// Shared paths are linked into it.
    Linked = "deploy-linked",
    /// The build hooks ran.
    Built = "deploy-built",
    /// `current` is about to lead to it.
    BeforeSwitch = "deploy-before-switch",
    /// `current` leads to it.
    AfterSwitch = "deploy-after-switch",
    /// The activate hooks ran.
    Activated = "deploy-activated",
    /// It is healthy, and noted as good.
    Healthy = "deploy-healthy",
    /// Old releases are removed.
    Cleaned = "deploy-cleaned",
}

/// Dies here if the test wants it.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub fn hit<P: Place>(_point: P) {}

/// What a program that begins with a clean environment needs to hear of the test's wish.
#[cfg(not(feature = "fault-points"))]
#[must_use]
pub fn wanted_by_test() -> Option<(&'static str, String)> {
    None
}

#[cfg(feature = "fault-points")]
pub use wanted::{hit, wanted_by_test};

#[cfg(feature = "fault-points")]
mod wanted {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, raise};

    use super::{DeployPoint, JobPoint, Place, Point};

    /// The variable by which a test asks.
    const VARIABLE: &str = "SIGNET_FAULT";

    /// What `SIGNET_FAULT` asks for.
    struct Wanted {
        point: &'static str,
        nth: u32,
        stop: bool,
        reached: AtomicU32,
    }

    static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(|| parse(&std::env::var(VARIABLE).ok()?));

    /// `None` for what makes no sense: then the test waits in vain for the program's death, and says so.
    fn parse(text: &str) -> Option<Wanted> {
        let mut parts = text.split(':');
        let name = parts.next()?;
        let commands = Point::ALL.iter().map(|p| p.name());
        let jobs = JobPoint::ALL.iter().map(|p| p.name());
        let mut all = commands.chain(jobs).chain(DeployPoint::ALL.iter().map(|p| p.name()));
        let point = all.find(|known| *known == name)?;
        let nth = parts.next().map_or(Ok(1), str::parse).ok()?;
        let stop = match parts.next() {
            None => false,
            Some("stop") => true,
            Some(_) => return None,
        };
        Some(Wanted { point, nth, stop, reached: AtomicU32::new(0) })
    }

    /// Dies here, or stands still, if the test wants it.
    pub fn hit<P: Place>(point: P) {
        let Some(wanted) = WANTED.as_ref().filter(|wanted| wanted.point == point.place()) else { return };
        if wanted.reached.fetch_add(1, Ordering::SeqCst) + 1 != wanted.nth {
            return;
        }
        tracing::warn!(point = point.place(), stop = wanted.stop, "a point of SIGNET_FAULT is reached");
        if !wanted.stop || raise(Signal::SIGSTOP).is_err() {
            std::process::abort();
        }
    }

    /// What a program that begins with a clean environment needs to hear of the test's wish.
    #[must_use]
    pub fn wanted_by_test() -> Option<(&'static str, String)> {
        std::env::var(VARIABLE).ok().map(|wish| (VARIABLE, wish))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_asked_for() {
            let read = |text| parse(text).map(|w| (w.point, w.nth, w.stop));
            assert_eq!(read("agent-before-ack"), Some(("agent-before-ack", 1, false)));
            assert_eq!(read("agent-before-ack:2"), Some(("agent-before-ack", 2, false)));
            assert_eq!(read("controller-after-commit:3:stop"), Some(("controller-after-commit", 3, true)));
            for nonsense in ["", "agent", "agent-before-ack:", "agent-before-ack:x", "agent-before-ack:1:go"]
            {
                assert_eq!(read(nonsense), None, "{nonsense}");
            }
        }
    }
}
