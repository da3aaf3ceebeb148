//! The launcher: the own binary, executed again as something tiny that becomes a command.
//!
//! A large process must not fork (copying its page tables takes milliseconds), and a threaded one must not run code
//! between fork and exec. So the agent spawns its own binary with [`MARKER`] through `posix_spawn`; the new process
//! has one thread and a few pages. Standard input is a socket to the agent, standard output and error are the command's
//! own. The plan comes through the socket, because arguments and environments can be read by others.
//!
//! With a cgroup the launcher joins it and becomes the command. Without one it stays as the parent and subreaper of the
//! command ([`supervise`]), and ends the tree on the agent's order or when the agent is gone.

mod account;
mod execute;
mod supervise;
mod sys;
pub(crate) mod wire;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::exit;
use std::{fs, io};

use nix::sys::prctl;
use nix::unistd::{close, setsid};

use wire::{Keep, Plan, Reply};

/// The first argument of a process that is a launcher. The second names the agent's data directory and the command, so
/// that the next start of the agent recognises it.
pub(crate) const MARKER: &str = "--signet-launch";
/// Not started as the agent would: there is nobody to tell more.
const EXIT_NO_PLAN: i32 = 2;

/// Becomes the launcher when this process was started as one, and does not return then. The first statement of
/// `main`, before any thread or runtime exists.
pub fn main_if_launcher() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == MARKER) {
        exit(match launch() {
            Ok(()) => 0,
            Err(_) => EXIT_NO_PLAN,
        });
    }
}

/// Does what the plan says. An error means that there is no agent to hear of it.
fn launch() -> io::Result<()> {
    close_inherited()?;
    // An ignored SIGCHLD would hide how the command ended.
    sys::reset_signals()?;
    // Away from the agent's terminal and process group; Ctrl-C there is not meant for commands.
    setsid()?;
    // Not the agent's name: who kills agents by name shall not hit what ends their commands.
    prctl::set_name(c"signet-launch")?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let Some(plan) = wire::read::<Plan>(&mut &control)? else { return Ok(()) };
    match &plan.keep {
        Keep::Tree => supervise::supervise(control, &plan),
        Keep::Cgroup(directory) => {
            let failed = match join(directory) {
                Ok(()) => {
                    wire::write(&mut &control, &Reply::Executing)?;
                    execute::execute(&plan, None)
                }
                Err(error) => format!("the command's cgroup cannot be joined: {error}"),
            };
            wire::write(&mut &control, &Reply::Failed(failed))
        }
    }
}

fn join(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Closes what the agent has inherited from its own parent without the close-on-exec flag.
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        if let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
            open.push(fd);
        }
    }
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The directory that listed them is among them and closed already; nothing else can fail here.
        close(fd).ok();
    }
    Ok(())
}

/// `/dev/null` for the given standard streams of this process.
fn null() -> io::Result<OwnedFd> {
    Ok(fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}
