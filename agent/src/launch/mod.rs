//! The launcher: a small process that becomes a command, or stays as its parent.
//!
//! A large process must not fork (copying its page tables takes milliseconds), and a threaded one must not run code
//! between fork and exec. So the agent spawns its own binary with [`MARKER`] through `posix_spawn`, once for many
//! commands: a [`server`] with one thread and a few pages. For each command it gets three descriptors from the agent and
//! forks a launcher, which spares exec and dynamic linking. A launcher is the agent's own child, not the server's: whatever
//! becomes of the server, the agent learns how the command ended. The server ends when the agent closes their socket,
//! also by dying, and leaves alone what runs.
//!
//! A launcher's standard input is a socket to the agent, standard output and error are the command's own. The plan comes
//! through the socket, because arguments and environments can be read by others. What the agent no longer wants it
//! refuses to hear: a launcher that cannot say [`Reply::Executing`] executes nothing, and one that is gone without
//! having said it has executed nothing.
//!
//! With a cgroup the launcher joins it and becomes the command. Without one it stays as the parent and subreaper of the
//! command ([`supervise`]), and ends the tree on the agent's order or when the agent is gone.

mod account;
mod execute;
mod server;
pub(crate) mod streams;
mod supervise;
mod sys;
pub(crate) mod wire;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::exit;
use std::{fs, io};

use nix::sys::prctl;
use nix::unistd::{close, setsid};

pub use wire::Program;
use wire::{Keep, Plan, Reply};

/// The first argument of a process that is a launcher or their server. The second names the agent's data directory and
/// ends with a `/`, so that the next start of the agent recognises it.
pub(crate) const MARKER: &str = "--signet-launch";
/// The first argument of a process that deploys ([`Program::Deploy`]). The second is the number of its report's
/// descriptor.
pub(crate) const DRIVER: &str = "--signet-deploy";
/// Not started as the agent would: there is nobody to tell more.
const EXIT_NO_PLAN: i32 = 2;

/// Becomes the launchers' server when this process was started as one, and does not return then, nor in the launchers.
/// The first statement of `main`, before any thread or runtime exists.
pub fn main_if_launcher() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == MARKER) {
        exit(match serve() {
            Ok(()) => 0,
            Err(_) => EXIT_NO_PLAN,
        });
    }
}

/// Serves, and does in each launcher what its plan says. An error means that there is no agent to hear of it.
fn serve() -> io::Result<()> {
    close_inherited()?;
    // An ignored SIGCHLD would hide how the command ended.
    sys::reset_signals()?;
    // Away from the agent's terminal and process group; Ctrl-C there is not meant for commands.
    setsid()?;
    // Not the agent's name: who kills agents by name shall not hit what ends their commands.
    prctl::set_name(c"signet-launch")?;
    match server::serve()? {
        Some(control) => launch(control),
        None => Ok(()),
    }
}

/// Does what the plan says.
fn launch(control: UnixStream) -> io::Result<()> {
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
