//! The agent's side of the launchers' server ([`crate::launch`]): starts it at the first need, and again when it is gone;
//! lets it go when nothing was started for some time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::process::Pid;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::child::{self, Child};
use crate::launch::MARKER;
use crate::launch::streams::{self, Streams};
use crate::limits::{KILL_GRACE, LAUNCHER_IDLE, LAUNCHES_MAX};

/// Spawns a server, and gives the socket on which it listens.
///
/// # Errors
/// The system's.
pub(crate) fn spawn(program: &Path, scope: &str) -> io::Result<(std::process::Child, OwnedFd)> {
    let (ours, theirs) = streams::pair()?;
    // Nothing here may make the standard library fork by itself: no user, no group, no hook.
    let child = Command::new(program)
        .arg0("signet-launch")
        .args([MARKER, &format!("{scope}/")])
        .env_clear()
        // Nothing, but where a test lets a deployment die.
        .envs(signet_common::fault::wanted_by_test())
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((child, ours))
}

/// Makes launchers.
#[derive(Debug)]
pub(crate) struct Launcher {
    program: PathBuf,
    scope: String,
    server: Mutex<Option<Server>>,
    asked: Semaphore,
}

/// A server that may be asked. It ends when this is dropped.
#[derive(Debug)]
struct Server {
    pid: Pid,
    socket: OwnedFd,
    used: Instant,
    /// Tells the task that waits for its end.
    _dropped: oneshot::Sender<()>,
}

impl Launcher {
    /// No process yet. `scope` names the agent in the arguments of launchers.
    pub(crate) fn new(program: PathBuf, scope: String) -> Arc<Self> {
        Arc::new(Self { program, scope, server: Mutex::new(None), asked: Semaphore::new(LAUNCHES_MAX) })
    }

    /// Waits until one more launcher may be asked for. To be kept until it answers.
    pub(crate) async fn turn(&self) -> io::Result<SemaphorePermit<'_>> {
        self.asked.acquire().await.map_err(io::Error::other)
    }

    /// Asks for a launcher with these streams, and gives the server that was asked. It may be gone: then the launcher's
    /// socket is closed without a word.
    ///
    /// # Errors
    /// No server can be started, or the system's.
    pub(crate) fn ask(self: &Arc<Self>, streams: &Streams) -> io::Result<Pid> {
        let mut server = self.lock();
        let server = match &mut *server {
            Some(server) => server,
            none => none.insert(self.start()?),
        };
        server.used = Instant::now();
        match streams::send(server.socket.as_fd(), streams) {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Err(error)
            }
            _ => Ok(server.pid),
        }
    }

    /// Does not ask this server again. What it was asked for it still does, unless it is gone or hangs.
    pub(crate) fn forget(&self, pid: Pid) {
        self.lock().take_if(|server| server.pid == pid);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>) -> io::Result<Server> {
        let ends = child::ends()?;
        let (spawned, socket) = spawn(&self.program, &self.scope)?;
        let child = Child::adopt(spawned, ends);
        let pid = child.pid();
        let (dropped, is_dropped) = oneshot::channel();
        tokio::spawn(keep(Arc::downgrade(self), child, is_dropped));
        Ok(Server { pid, socket, used: Instant::now(), _dropped: dropped })
    }

    /// When to look again whether this server is still needed. `None` when it is not, or no longer asked.
    fn needed_until(&self, pid: Pid) -> Option<Instant> {
        let server = self.lock();
        let until = server.as_ref().filter(|server| server.pid == pid)?.used + LAUNCHER_IDLE;
        (until > Instant::now()).then_some(until)
    }
}

/// Follows a server to its end.
async fn keep(launcher: Weak<Launcher>, mut server: Child, mut dropped: oneshot::Receiver<()>) {
    let pid = server.pid();
    while let Some(until) = launcher.upgrade().and_then(|launcher| launcher.needed_until(pid)) {
        tokio::select! {
            _ = server.wait() => break,
            _ = &mut dropped => break,
            () = sleep_until(until) => {}
        }
    }
    if let Some(launcher) = launcher.upgrade() {
        launcher.forget(pid);
    }
    // It sees that its socket is closed, unless it hangs.
    if timeout(KILL_GRACE, server.wait()).await.is_err()
        && let Err(error) = server.kill().await
    {
        tracing::warn!(%error, "a launchers' server cannot be ended");
    }
    // Launchers that ended before they had said who they are.
    match child::ends() {
        Ok(mut ends) => child::wait_for_group(pid, &mut ends).await,
        Err(error) => tracing::warn!(%error, "children cannot be waited for"),
    }
}
