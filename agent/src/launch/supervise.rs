//! Without cgroups: the launcher stays, is the parent of everything that the command leaves behind, and ends it.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, getpid, setsid};
use rustix::process::WaitOptions;

use super::wire::{self, ORDER_KILL, ORDER_TERM, Plan, Reply};
use super::{execute, null, sys};
use crate::limits::{KILL_GRACE, TERM_GRACE, TREE_LOOK_EVERY};
use crate::processes::descendants;

/// The exit code of a child that executed nothing; nobody reads it.
const EXIT_NOT_EXECUTED: i32 = 127;

/// Starts the command, tells the agent how it goes, and returns when no process of it is left.
pub(super) fn supervise(control: UnixStream, plan: &Plan) -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    // Only children count from here on; whoever wants this process gone has to kill it.
    SigSet::all().thread_block()?;
    let signals = SignalFd::with_flags(
        &SigSet::from_iter([Signal::SIGCHLD]),
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?;
    let (mut fault, fault_writer) = io::pipe()?;
    let launcher = getpid();
    // From here on the command may have run, even if nobody is left to say so.
    wire::write(&mut &control, &Reply::Executing)?;
    let main = match sys::fork_launcher() {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => become_command(plan, launcher, fault_writer),
        Err(error) => return wire::write(&mut &control, &sys::no_process(error)),
    };
    drop(fault_writer);
    let null = null()?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    std::env::set_current_dir("/")?;

    let mut text = String::new();
    fault.read_to_string(&mut text)?;
    if !text.is_empty() {
        return wire::write(&mut &control, &Reply::Failed(text));
    }
    wire::write(&mut &control, &Reply::Started(main.as_raw()))?;
    Supervisor { control, signals, main, ending: Ending::No, killed: HashSet::new() }.run()
}

fn become_command(plan: &Plan, launcher: Pid, mut fault: io::PipeWriter) -> ! {
    let session = setsid().map_err(|error| format!("no session for the command: {error}"));
    let text = match session.and_then(|_| execute::die_with(launcher)) {
        Ok(()) => execute::execute(plan, Some(launcher)),
        Err(fault) => fault,
    };
    // The pipe closes either way, and a launcher that hears nothing has gone.
    fault.write_all(text.as_bytes()).ok();
    std::process::exit(EXIT_NOT_EXECUTED)
}

/// How far the end of the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// The agent is gone; TERM was sent.
    KillAt(Instant),
    /// KILL is sent to whatever shows up.
    GiveUpAt(Instant),
}

struct Supervisor {
    control: UnixStream,
    signals: SignalFd,
    main: Pid,
    ending: Ending,
    killed: HashSet<i32>,
}

impl Supervisor {
    fn run(mut self) -> io::Result<()> {
        let mut agent_listens = true;
        loop {
            if !self.reap()? {
                return self.say(&Reply::Empty { killed: self.killed.len() as u64, left: 0 });
            }
            let now = Instant::now();
            match self.ending {
                Ending::KillAt(at) if now >= at => self.ending = Ending::GiveUpAt(now + KILL_GRACE),
                Ending::GiveUpAt(at) if now >= at => {
                    let left = descendants(getpid().as_raw()).map_or(1, |left| left.len());
                    return self.say(&Reply::Empty { killed: self.killed.len() as u64, left: left as u64 });
                }
                _ => {}
            }
            if matches!(self.ending, Ending::GiveUpAt(_)) {
                self.kill_all();
            }
            agent_listens = self.wait(agent_listens)?;
        }
    }

    /// Sleeps until a child changes, the agent says something or the next step is due. False when the agent is gone.
    fn wait(&mut self, agent_listens: bool) -> io::Result<bool> {
        let timeout = match self.ending {
            Ending::No => None,
            Ending::KillAt(at) => Some(at.saturating_duration_since(Instant::now())),
            Ending::GiveUpAt(_) => Some(TREE_LOOK_EVERY),
        };
        // Rounded up, so that it never spins for a part of a millisecond.
        let timeout = timeout.map_or(Ok(PollTimeout::NONE), |time| {
            PollTimeout::try_from(time + Duration::from_millis(1)).map_err(io::Error::other)
        })?;
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if agent_listens {
            fds.push(PollFd::new(self.control.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let said = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        while self.signals.read_signal()?.is_some() {}
        if !said {
            return Ok(agent_listens);
        }
        let mut order = [0];
        match (&self.control).read(&mut order) {
            Ok(1) if order[0] == ORDER_TERM => self.signal_all(Signal::SIGTERM),
            Ok(1) if order[0] == ORDER_KILL => self.ending = Ending::GiveUpAt(Instant::now() + KILL_GRACE),
            Ok(1) => {}
            _ => {
                if self.ending == Ending::No {
                    self.signal_all(Signal::SIGTERM);
                    self.ending = Ending::KillAt(Instant::now() + TERM_GRACE);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the exit status of every child that has ended. False when there is none left.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            // The wrapper of `nix` has no word for real-time signals, and loses the child.
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Ok(None) => return Ok(true),
                Err(rustix::io::Errno::CHILD) => return Ok(false),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if pid.as_raw_pid() == self.main.as_raw() {
                self.say(&Reply::Exited(status.into()))?;
            }
        }
    }

    /// Tells the agent; one that is gone is noticed where it is waited for.
    fn say(&self, reply: &Reply) -> io::Result<()> {
        match wire::write(&mut &self.control, reply) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn kill_all(&mut self) {
        let Ok(tree) = descendants(getpid().as_raw()) else {
            // Without /proc the command's own process group is all that can be found.
            killpg(self.main, Signal::SIGKILL).ok();
            return;
        };
        for process in tree {
            let pid = Pid::from_raw(process.pid);
            // What ends by itself was not left behind.
            if kill(pid, Signal::SIGKILL).is_ok() && pid != self.main && !process.ending {
                self.killed.insert(process.pid);
            }
        }
    }

    fn signal_all(&self, signal: Signal) {
        for process in descendants(getpid().as_raw()).unwrap_or_default() {
            let pid = Pid::from_raw(process.pid);
            // It may have ended by itself meanwhile. A stopped one must wake up to hear it.
            kill(pid, signal).and_then(|()| kill(pid, Signal::SIGCONT)).ok();
        }
    }
}
