//! Children of this process, most of them not spawned by it: each is waited for by its id, and whatever happens.

use std::io;

use nix::sys::signal::{Signal as Number, kill};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpgid, waitpid};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::launch::wire::Exit;

/// Tells that some child has ended. Made before there is a child, because nothing may fail once there is one.
///
/// # Errors
/// The system's.
pub(crate) fn ends() -> io::Result<Signal> {
    signal(SignalKind::child())
}

/// A child. When it is dropped before its end, the runtime goes on waiting for it.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    ends: Signal,
    exit: Option<Exit>,
}

impl Child {
    /// The child of this id. Nobody else waits for it, unless it ends so early that it still is in its server's group.
    pub(crate) fn new(pid: Pid, ends: Signal) -> Self {
        Self { pid, ends, exit: None }
    }

    /// A child that the standard library has spawned and is no longer asked about.
    pub(crate) fn adopt(spawned: std::process::Child, ends: Signal) -> Self {
        Self::new(Pid::from_child(&spawned), ends)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for its end. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        let exit = next_end(&mut self.ends, || waitpid(Some(self.pid), WaitOptions::NOHANG)).await;
        *self.exit.insert(exit.unwrap_or(Exit::Lost))
    }

    /// Kills it, unless it is known to have ended, and waits for its end.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        // A launcher that died early may have been waited for with its group: then the id is no longer its own.
        if self.exit.is_none() && matches!(waitpid(Some(self.pid), WaitOptions::NOHANG), Ok(None)) {
            kill(nix::unistd::Pid::from_raw(self.pid.as_raw_pid()), Number::SIGKILL)?;
        }
        self.wait().await;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_some() || !matches!(waitpid(Some(self.pid), WaitOptions::NOHANG), Ok(None)) {
            return;
        }
        let pid = self.pid;
        // Without a runtime this process is about to end.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                match ends() {
                    Ok(ends) => drop(Self::new(pid, ends).wait().await),
                    Err(error) => tracing::warn!(%error, "a child cannot be waited for"),
                }
            });
        }
    }
}

/// Waits for every child in a process group, until none is left there.
pub(crate) async fn wait_for_group(group: Pid, ends: &mut Signal) {
    while next_end(ends, || waitpgid(group, WaitOptions::NOHANG)).await.is_some() {}
}

/// Looks now and whenever a child has ended. `None` when there is no such child.
async fn next_end(
    ends: &mut Signal,
    look: impl Fn() -> rustix::io::Result<Option<(Pid, WaitStatus)>>,
) -> Option<Exit> {
    loop {
        match look() {
            Ok(Some((_, status))) => return Some(status.into()),
            Ok(None) => ends.recv().await?,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes;

    fn spawn(text: &str) -> Child {
        let spawned = std::process::Command::new("sh").args(["-c", text]).spawn().unwrap();
        Child::adopt(spawned, ends().unwrap())
    }

    #[tokio::test]
    async fn the_end_is_told_as_it_was_however_often_one_asks() {
        for (text, exit) in [("exit 7", Exit::Code(7)), ("kill -RTMIN $$", Exit::Signal(34))] {
            let mut child = spawn(text);
            assert_eq!((child.wait().await, child.wait().await), (exit, exit));
            child.kill().await.unwrap();
        }
        let mut child = spawn("exec sleep 1000");
        child.kill().await.unwrap();
        assert_eq!(child.wait().await, Exit::Signal(9));
    }

    #[tokio::test]
    async fn a_dropped_one_is_waited_for_all_the_same() {
        let child = spawn("exec sleep 1000");
        let pid = child.pid().as_raw_pid();
        drop(child);
        kill(nix::unistd::Pid::from_raw(pid), Number::SIGKILL).unwrap();
        let gone = || processes::all().unwrap().iter().all(|process| process.pid != pid).then_some(());
        signet_testkit::eventually(std::time::Duration::from_secs(20), "its end", async || gone()).await;
    }
}
