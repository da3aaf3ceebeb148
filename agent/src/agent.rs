//! What the agent's loops share. Each loop is a file of its own: [`crate::consume`], [`crate::execute`],
//! [`crate::report`], [`crate::heartbeat`], [`crate::session`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signet_common::bus::Bus;
use signet_common::deploy::Standing;
use signet_common::ids::{AgentId, Hostname, Jti, LogId, StartId};
use signet_common::keyring::Keyring;
use signet_common::keys::SigningKey;
use signet_common::messages::{BusyReason, Event};
use signet_common::time::Micros;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deploy::Known;
use crate::heartbeat::Vitals;
use crate::identity::DataDir;
use crate::journal::{Entry, Head, Journal, NotWritten, Purpose};
use crate::limits::RETRY_FIRST;
use crate::policy::{Here, Policy};
use crate::run::{End, Runner};
use crate::verify::{Refused, Time};
use crate::work::Work;

/// The way to the broker, while the controller lets this agent in.
pub(crate) type Link = Option<Arc<dyn Bus>>;

/// Whether accepted commands may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Not before the controller's first word, or until that takes too long.
    Starting,
    /// They start.
    Open,
    /// This log does not fit what the controller knows; an admin has to decide.
    SetAside,
    /// The agent stops.
    Stopping,
}

/// From where to report (again).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rewind {
    /// The log that the controller follows.
    pub log_id: LogId,
    /// The last event that it has.
    pub seq: u64,
}

/// What changes with every message. Never locked across an await.
#[derive(Debug)]
pub(crate) struct Desk {
    pub work: Work,
    pub time: Time,
    pub refused: Refused,
    pub keyring: Option<Keyring>,
    /// How to end what runs.
    pub ends: HashMap<Jti, watch::Sender<Option<End>>>,
    pub gate: Gate,
}

/// See the module.
pub(crate) struct Agent {
    pub id: AgentId,
    pub key: SigningKey,
    pub hostname: Hostname,
    pub group: Option<String>,
    pub start_id: StartId,
    pub boot_id: String,
    pub data: DataDir,
    pub journal: Journal,
    /// Where the log stood when it was opened. The first hello says this, before anything that a restart adds can hide
    /// that the log was rolled back.
    pub opened: Head,
    pub runner: Runner,
    pub policy: Policy,
    /// As whom a command without `user` runs.
    pub own_user: String,
    /// Whether nobody else is at work in this process.
    pub alone: bool,
    desk: Mutex<Desk>,
    numbers: AtomicU64,
    pub link: watch::Sender<Link>,
    pub rewind: watch::Sender<Option<Rewind>>,
    /// The last event that the broker has confirmed.
    pub sent: watch::Sender<u64>,
    /// Held while messages are taken, and while a new log begins.
    pub taking: tokio::sync::Mutex<()>,
    /// Asks for a heartbeat now.
    pub beat: Notify,
    /// Asks for a hello soon.
    pub hello: Notify,
    /// Changes with each hello that let this agent in: its queue is there again.
    pub welcomed: watch::Sender<()>,
    /// What was deployed here.
    pub known: tokio::sync::Mutex<Known>,
    /// Tells that a deployment ended.
    pub deployed: Notify,
    /// How deployed paths stand, as heartbeats tell it.
    pub standings: watch::Sender<Vec<Standing>>,
    /// The host's figures, held while a heartbeat is sent.
    pub vitals: tokio::sync::Mutex<Vitals>,
    /// From here on only the last heartbeat is sent.
    pub farewell: CancellationToken,
    /// Whether this agent's journal is the first that its key ever had: then what was issued before it never started here.
    pub first_log: AtomicBool,
    /// Commands and last words that are under way.
    pub tasks: TaskTracker,
    /// Ends every loop.
    pub stop: CancellationToken,
}

/// What an [`Agent`] is made of.
pub(crate) struct Parts {
    pub key: SigningKey,
    pub hostname: Hostname,
    pub group: Option<String>,
    pub boot_id: String,
    pub data: DataDir,
    pub journal: Journal,
    pub runner: Runner,
    pub policy: Policy,
    pub own_user: String,
    pub alone: bool,
    pub work: Work,
    pub time: Time,
    pub keyring: Option<Keyring>,
    /// Whether an older log lies beside the journal.
    pub is_new: bool,
}

impl Agent {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let desk = Desk {
            work: parts.work,
            time: parts.time,
            refused: Refused::default(),
            keyring: parts.keyring,
            ends: HashMap::new(),
            gate: Gate::Starting,
        };
        let known = Known::read(parts.data.path());
        Arc::new(Self {
            id: parts.key.public().agent_id(),
            key: parts.key,
            hostname: parts.hostname,
            group: parts.group,
            start_id: StartId::generate(),
            boot_id: parts.boot_id,
            data: parts.data,
            opened: parts.journal.head().borrow().clone(),
            journal: parts.journal,
            runner: parts.runner,
            policy: parts.policy,
            own_user: parts.own_user,
            alone: parts.alone,
            desk: Mutex::new(desk),
            numbers: AtomicU64::new(0),
            link: watch::Sender::new(None),
            rewind: watch::Sender::new(None),
            sent: watch::Sender::new(0),
            taking: tokio::sync::Mutex::new(()),
            beat: Notify::new(),
            hello: Notify::new(),
            welcomed: watch::Sender::new(()),
            known: tokio::sync::Mutex::new(known),
            deployed: Notify::new(),
            standings: watch::Sender::new(Vec::new()),
            vitals: tokio::sync::Mutex::new(Vitals::new()),
            farewell: CancellationToken::new(),
            first_log: AtomicBool::new(parts.is_new),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// The desk. A panic of another holder can't leave it half-changed: its methods don't panic.
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with each report and heartbeat.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The newest `iat` that was verified, whole seconds since 1970.
    pub(crate) fn verified(&self) -> i64 {
        self.desk().time.verified()
    }

    /// The agent's time, whole seconds since 1970: never earlier than anything verified.
    pub(crate) fn time(&self) -> i64 {
        self.desk().time.now(Micros::now().seconds())
    }

    /// The time that outlives this start, and the newest `iat` that was verified, whole seconds since 1970.
    pub(crate) fn lasting_time(&self) -> (i64, i64) {
        let time = self.desk().time;
        (time.lasting(Micros::now().seconds()), time.verified())
    }

    /// What the policy must know of this host, at the agent's time `now`.
    pub(crate) fn here(&self, now: i64) -> Here<'_> {
        Here { me: &self.id, user: &self.own_user, now, log_began: self.journal.head().borrow().began() }
    }

    /// Why it takes no work.
    pub(crate) fn busy(&self) -> Option<BusyReason> {
        let trouble = self.journal.head().borrow().trouble;
        let desk = self.desk();
        match desk.gate {
            Gate::Stopping => Some(BusyReason::Stopping),
            Gate::Starting => Some(BusyReason::Starting),
            Gate::Open | Gate::SetAside => trouble.or_else(|| desk.work.busy(1)),
        }
    }

    /// Appends entries at the agent's time.
    pub(crate) async fn append(&self, entries: Vec<Entry>, purpose: Purpose) -> Result<(), NotWritten> {
        self.journal.append(entries, purpose, Micros::from_seconds(self.time())).await
    }

    /// Appends an end. On a full disk it is tried again until there is room: an end is never given up.
    pub(crate) async fn append_end(&self, entries: Vec<Entry>) {
        while !self.try_end(&entries).await {
            tokio::select! {
                () = tokio::time::sleep(RETRY_FIRST) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Writes ends. They are in the journal when this returns, but on a full disk: then they wait in the background.
    pub(crate) async fn write_end(self: &Arc<Self>, entries: Vec<Entry>) {
        if !entries.is_empty() && !self.try_end(&entries).await {
            self.spawn_end(entries);
        }
    }

    /// False when there is no room.
    async fn try_end(&self, entries: &[Entry]) -> bool {
        match self.append(entries.to_vec(), Purpose::End).await {
            Ok(()) => true,
            Err(NotWritten::Closed) => {
                tracing::error!("an end could not be written: the journal is closed");
                true
            }
            Err(full) => {
                tracing::debug!(%full, "an end waits for room on the disk");
                false
            }
        }
    }

    /// Writes ends in the background.
    pub(crate) fn spawn_end(self: &Arc<Self>, entries: Vec<Entry>) {
        if !entries.is_empty() {
            let agent = Arc::clone(self);
            self.tasks.spawn(async move { agent.append_end(entries).await });
        }
    }
}

/// An entry without a message, whose id is known already.
pub(crate) fn entry(event: Event) -> Entry {
    Entry { event, exp: 0, message: None }
}

/// The clock, as events carry it.
pub(crate) fn at() -> i64 {
    Micros::now().0
}

/// An agent on which no loop runs.
#[cfg(test)]
pub(crate) fn at_rest(root: &std::path::Path, keyring: Keyring) -> Arc<Agent> {
    use crate::run::{CgroupChoice, RunnerConfig};
    let data = DataDir::open(root).unwrap();
    let launcher = "/bin/false".into();
    let runner = RunnerConfig { data_dir: root.to_owned(), launcher, cgroup: CgroupChoice::Never };
    Agent::new(Parts {
        key: data.key().unwrap(),
        hostname: "web1".parse().unwrap(),
        group: None,
        boot_id: "boot".into(),
        data,
        journal: Journal::open(root, "boot").unwrap().journal,
        runner: Runner::new(runner).unwrap(),
        policy: Policy::default(),
        own_user: "root".into(),
        alone: true,
        work: Work::new(1, HashMap::new()),
        time: Time::default(),
        keyring: Some(keyring),
        is_new: true,
    })
}
