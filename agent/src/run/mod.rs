//! Starts a process, captures it, ends it.
//!
//! A command is started through a launcher ([`crate::launch`]), a fork of something much smaller than the agent, which
//! becomes the requested user and reports every fault before the exec. From then on a driver
//! task reads the output without ever stopping, and ends the whole tree at its time.

mod cgroup;
mod child;
mod detached;
mod drive;
mod launcher;
mod leftovers;
mod output;
mod start;
mod tree;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use aws_lc_rs::digest::{SHA256, digest};

use signet_common::Jti;
use signet_common::messages::{CommandResult, Isolation, Rejection, Stream};
use tokio::sync::{mpsc, oneshot, watch};

pub use crate::launch::Program;
use crate::limits::RUN_EVENTS_MAX;
use cgroup::Jobs;
use launcher::Launcher;
use leftovers::{Leftovers, Record};

/// One command, as it is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The message's id: names the cgroup, the unit and the `SIGNET_JTI` in the environment.
    pub jti: Jti,
    /// What to execute.
    pub program: Program,
    /// Added to the clean environment (`HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH`, `SIGNET_JTI`).
    pub env: BTreeMap<String, String>,
    /// Absolute working directory; absent = the user's home, or `/` when that is missing.
    pub cwd: Option<PathBuf>,
    /// Standard input; absent = `/dev/null`.
    pub stdin: Option<String>,
    /// Account to run as; absent = the agent's own.
    pub user: Option<String>,
    /// From the start of the process until it is ended; [`signet_common::limits::TIMEOUT_SECONDS_MAX`] at most.
    pub timeout: Duration,
    /// Output kept per stream, in bytes; [`signet_common::limits::OUTPUT_BYTES_MAX`] at most.
    pub output_limit: u64,
    /// Run in a systemd unit of its own and don't follow it.
    pub detached: bool,
}

/// It could not be started, and nothing of it was executed: becomes a `rejected` event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct CannotStart {
    /// [`Rejection::Exec`] or [`Rejection::Unsupported`].
    pub reason: Rejection,
    /// One clear sentence for a person.
    pub detail: String,
}

/// How commands are kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupChoice {
    /// A cgroup per command where the host has cgroup v2 and the agent may use it, else process groups.
    #[default]
    Auto,
    /// Process groups.
    Never,
}

/// Where and how to run.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// The agent's data directory: says what runs, for the start after a crash.
    pub data_dir: PathBuf,
    /// The program to re-exec; its `main` begins with [`crate::launch::main_if_launcher`].
    pub launcher: PathBuf,
    /// Whether to use cgroups.
    pub cgroup: CgroupChoice,
}

impl RunnerConfig {
    /// This very program as launcher (also after its file was replaced), and cgroups where they work.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, launcher: PathBuf::from("/proc/self/exe"), cgroup: CgroupChoice::Auto }
    }
}

/// Processes that an earlier start of the agent had left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftBehind {
    /// So many were ended.
    pub killed: u64,
    /// So many could not be ended: the kernel itself hangs in them.
    pub left: u64,
}

/// Starts commands. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runner {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    launcher: Arc<Launcher>,
    jobs: Option<Jobs>,
    leftovers: Mutex<Option<Leftovers>>,
}

impl Runner {
    /// Finds out how commands can be kept together on this host. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub fn new(config: RunnerConfig) -> io::Result<Self> {
        fs::create_dir_all(&config.data_dir)?;
        let scope = scope(&fs::canonicalize(&config.data_dir)?);
        let jobs = match config.cgroup {
            CgroupChoice::Never => None,
            CgroupChoice::Auto => match Jobs::make(&scope, &config.launcher) {
                Ok(jobs) => Some(jobs),
                Err(error) => {
                    tracing::info!(%error, "commands are kept together by process groups, not by cgroups");
                    None
                }
            },
        };
        detached::forget(&config.data_dir)?;
        let leftovers = Leftovers::find(&config.data_dir, &scope, jobs.as_ref())?;
        let launcher = Launcher::new(config.launcher, scope);
        let leftovers = Mutex::new(Some(leftovers));
        Ok(Self { inner: Arc::new(Inner { data_dir: config.data_dir, launcher, jobs, leftovers }) })
    }

    /// How commands are ended; for heartbeats.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        match self.inner.jobs {
            Some(_) => Isolation::Cgroup,
            None => Isolation::ProcessGroup,
        }
    }

    /// Ends everything that an earlier start of the agent may have left. To be called at the start, before `interrupted` is
    /// reported; a second call finds nothing.
    ///
    /// # Errors
    /// When the host does not let the agent look.
    pub async fn end_leftovers(&self) -> io::Result<LeftBehind> {
        let leftovers = self.inner.leftovers.lock().unwrap_or_else(PoisonError::into_inner).take();
        match leftovers {
            Some(leftovers) => leftovers.end().await,
            None => Ok(LeftBehind::default()),
        }
    }

    /// Starts a command. When this returns `Ok`, it has been executed. When the returned future is dropped, it is not,
    /// or ends at once.
    ///
    /// # Errors
    /// [`CannotStart`] when nothing of it was executed.
    pub async fn start(&self, spec: Spec) -> Result<Running, CannotStart> {
        let (started, starts) = oneshot::channel();
        let (sender, events) = mpsc::channel(RUN_EVENTS_MAX);
        let (end, ends) = watch::channel(None);
        // In a task from the beginning: a caller that goes away leaves no half-started command.
        tokio::spawn(self.clone().run(spec, started, sender, ends));
        match starts.await {
            Ok(Ok(())) => Ok(Running { events, end }),
            Ok(Err(cannot)) => Err(cannot),
            Err(_) => Err(CannotStart::exec("the agent stops")),
        }
    }

    async fn run(
        self,
        spec: Spec,
        started: oneshot::Sender<Result<(), CannotStart>>,
        events: mpsc::Sender<RunEvent>,
        ends: watch::Receiver<Option<End>>,
    ) {
        let (command, unit, record) = match self.prepare(spec).await {
            Ok(prepared) => prepared,
            Err(cannot) => {
                // Who asked may be gone; nothing was executed either way.
                started.send(Err(cannot)).ok();
                return;
            }
        };
        // Who asked may be gone: then the driver sees that nobody listens, and ends the command.
        started.send(Ok(())).ok();
        let mut result = drive::drive(command, &events, ends).await;
        drop(record);
        if let Some(unit) = unit {
            unit.report(&mut result);
        }
        if events.send(RunEvent::Finished(Box::new(result))).await.is_err() {
            tracing::debug!("nobody waits for this command any more");
        }
    }

    async fn prepare(
        &self,
        spec: Spec,
    ) -> Result<(drive::Started, Option<detached::Unit>, Option<Record>), CannotStart> {
        let Inner { data_dir, launcher, jobs, .. } = &*self.inner;
        start::check(&spec)?;
        let (spec, unit) = if spec.detached {
            let data_dir = data_dir.clone();
            let prepared = tokio::task::spawn_blocking(move || detached::prepare(&spec, &data_dir));
            let (spec, unit) = prepared.await.map_err(|error| CannotStart::exec(error.to_string()))??;
            (spec, Some(unit))
        } else {
            (spec, None)
        };
        let record = match jobs {
            // The cgroup itself is the record.
            Some(_) => None,
            None => Record::write(data_dir, &spec.jti)
                .inspect_err(|error| tracing::warn!(%error, "a running command cannot be recorded"))
                .ok(),
        };
        let command = start::start(launcher, jobs.as_ref(), spec).await?;
        Ok((command, unit, record))
    }
}

/// A short name for a data directory: tells its agent from others on the host.
fn scope(data_dir: &Path) -> String {
    let mut name = hex::encode(digest(&SHA256, data_dir.as_os_str().as_bytes()));
    name.truncate(12);
    name
}

/// Why a running command is to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An admin cancelled it.
    Cancel,
    /// The agent stops.
    AgentStops,
}

/// What a running command tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEvent {
    /// A piece of output, in order per stream.
    Output {
        /// Which stream.
        stream: Stream,
        /// Offset of the piece in the stream.
        offset: u64,
        /// At most [`signet_common::limits::OUTPUT_CHUNK_BYTES_MAX`].
        data: Vec<u8>,
    },
    /// Pieces are being left out; the bytes written so far.
    Count {
        /// Which stream.
        stream: Stream,
        /// Written so far.
        bytes: u64,
    },
    /// It is over; nothing follows.
    Finished(Box<CommandResult>),
}

/// A command that runs. Dropped before it finished, its tree is ended.
#[derive(Debug)]
pub struct Running {
    events: mpsc::Receiver<RunEvent>,
    end: watch::Sender<Option<End>>,
}

impl Running {
    /// The next event; [`RunEvent::Finished`] comes exactly once and last. Cancel-safe. Asked again after that, it waits
    /// for ever.
    pub async fn next(&mut self) -> RunEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Ends it: TERM, [`crate::limits::TERM_GRACE`], KILL of the whole tree. Only the first call counts.
    pub fn end(&self, why: End) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(why);
            first
        });
    }
}
