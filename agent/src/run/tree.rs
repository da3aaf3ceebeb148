//! A command's processes, from its main process to the last one that is left, whichever way they are kept together.

use std::collections::HashSet;
use std::io;

use bytes::BytesMut;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signet_common::Jti;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::cgroup::Job;
use super::child::Child;
use super::leftovers;
use crate::launch::wire::{self, Exit, ORDER_KILL, ORDER_TERM, Reply};
use crate::limits::{KILL_GRACE, TREE_LOOK_EVERY};
use crate::processes;

/// What happens to a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeEvent {
    /// The main process is over. Comes once, before [`TreeEvent::Empty`].
    Exited(Exit),
    /// Nothing is left. Comes once and last.
    Empty {
        /// Killed apart from the main process.
        killed: u64,
        /// Could not be ended.
        left: u64,
    },
}

/// The processes of one command.
#[derive(Debug)]
pub(crate) enum Tree {
    /// In a cgroup; the child is the main process.
    Cgroup(Box<InCgroup>),
    /// Below a launcher, which is the child.
    Launcher(Box<BelowLauncher>),
}

impl Tree {
    /// The next event. Cancel-safe. Not to be asked after [`TreeEvent::Empty`].
    pub(crate) async fn next(&mut self) -> TreeEvent {
        match self {
            Self::Cgroup(tree) => tree.next().await,
            Self::Launcher(tree) => tree.next().await,
        }
    }

    /// TERM to every process.
    pub(crate) fn term(&mut self) {
        match self {
            Self::Cgroup(tree) => complain(tree.job.term(), &tree.job),
            Self::Launcher(tree) => tree.order(ORDER_TERM),
        }
    }

    /// KILL to every process. [`TreeEvent::Empty`] follows soon, with `left` when it did not work.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Cgroup(tree) => complain(tree.kill(), &tree.job),
            Self::Launcher(tree) => tree.order(ORDER_KILL),
        }
    }

    /// Cleans up after [`TreeEvent::Empty`].
    pub(crate) async fn remove(self) {
        match self {
            Self::Cgroup(tree) => tree.remove().await,
            Self::Launcher(mut tree) => {
                // It ends right after its last word. If not, the runtime waits for it.
                timeout(KILL_GRACE, tree.child.wait()).await.ok();
            }
        }
    }
}

fn complain(result: io::Result<()>, job: &Job) {
    if let Err(error) = result {
        tracing::warn!(cgroup = %job.directory().display(), %error, "the cgroup does not obey");
    }
}

/// A tree in a cgroup.
#[derive(Debug)]
pub(crate) struct InCgroup {
    child: Child,
    job: Job,
    exited: bool,
    killed: HashSet<i32>,
    give_up: Option<Instant>,
}

impl InCgroup {
    pub(crate) fn new(child: Child, job: Job) -> Self {
        Self { child, job, exited: false, killed: HashSet::new(), give_up: None }
    }

    async fn next(&mut self) -> TreeEvent {
        if !self.exited {
            let exit = self.child.wait().await;
            self.exited = true;
            return TreeEvent::Exited(exit);
        }
        while self.job.is_populated().unwrap_or(false) {
            if self.give_up.is_some_and(|at| Instant::now() >= at) {
                let left = self.job.pids().map_or(1, |pids| pids.len());
                return TreeEvent::Empty { killed: self.killed.len() as u64, left: left as u64 };
            }
            sleep(TREE_LOOK_EVERY).await;
        }
        TreeEvent::Empty { killed: self.killed.len() as u64, left: 0 }
    }

    fn kill(&mut self) -> io::Result<()> {
        self.give_up.get_or_insert(Instant::now() + KILL_GRACE);
        if !self.job.is_populated()? {
            return Ok(());
        }
        // What ends by itself was not left behind.
        let main = self.child.pid().as_raw_pid();
        let left = self.job.pids()?.into_iter().filter(|pid| *pid != main);
        self.killed.extend(left.filter(|pid| processes::is_running(*pid)));
        self.job.kill()
    }

    async fn remove(self) {
        let give_up = Instant::now() + KILL_GRACE;
        while let Err(error) = self.job.remove() {
            if Instant::now() >= give_up {
                // The next start removes it.
                return complain(Err(error), &self.job);
            }
            sleep(TREE_LOOK_EVERY).await;
        }
    }
}

/// A tree below a launcher.
#[derive(Debug)]
pub(crate) struct BelowLauncher {
    child: Child,
    control: UnixStream,
    received: BytesMut,
    /// Unknown when the launcher was killed at once.
    main: Option<i32>,
    jti: Jti,
    exited: bool,
    /// The launcher is gone before its time, and the agent has to end the tree itself, until this moment.
    lost: Option<Instant>,
    killed: HashSet<i32>,
}

impl BelowLauncher {
    pub(crate) fn new(
        child: Child,
        control: UnixStream,
        received: BytesMut,
        main: Option<i32>,
        jti: Jti,
    ) -> Self {
        Self { child, control, received, main, jti, exited: false, lost: None, killed: HashSet::new() }
    }

    async fn next(&mut self) -> TreeEvent {
        while self.lost.is_none() {
            match next_reply(&mut self.control, &mut self.received).await {
                Ok(Some(Reply::Exited(exit))) => {
                    self.exited = true;
                    return TreeEvent::Exited(exit);
                }
                Ok(Some(Reply::Empty { killed, left })) => return TreeEvent::Empty { killed, left },
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => self.lost = Some(Instant::now() + KILL_GRACE),
            }
        }
        if !self.exited {
            self.exited = true;
            return TreeEvent::Exited(Exit::Lost);
        }
        self.sweep().await
    }

    /// Kills what the launcher would have killed, as far as it can be recognised.
    async fn sweep(&mut self) -> TreeEvent {
        loop {
            let tree = leftovers::of_command(&self.jti, self.main);
            let left = tree.len() as u64;
            if left == 0 || self.lost.is_none_or(|give_up| Instant::now() >= give_up) {
                return TreeEvent::Empty { killed: self.killed.len() as u64, left };
            }
            for process in tree {
                let killed = kill(Pid::from_raw(process.pid), Signal::SIGKILL).is_ok();
                if killed && Some(process.pid) != self.main {
                    self.killed.insert(process.pid);
                }
            }
            sleep(TREE_LOOK_EVERY).await;
        }
    }

    fn order(&self, order: u8) {
        // One byte always fits, and a launcher that is gone is noticed where it is listened to.
        self.control.try_write(&[order]).ok();
    }
}

/// The launcher's next reply; `None` when it has closed. Cancel-safe.
pub(crate) async fn next_reply(
    control: &mut UnixStream,
    received: &mut BytesMut,
) -> io::Result<Option<Reply>> {
    loop {
        if let Some(reply) = wire::take(received)? {
            return Ok(Some(reply));
        }
        match control.read_buf(received).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            // Killed before it had read everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
