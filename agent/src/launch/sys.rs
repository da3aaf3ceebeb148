//! The calls that have no safe wrapper.
#![allow(
    unsafe_code,
    reason = "fork, signal dispositions and waitpid; the launcher has one thread and no handlers"
)]

use nix::errno::Errno;
use nix::libc::{WEXITSTATUS, WIFEXITED, WNOHANG, WTERMSIG, c_int, waitpid};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, fork};

use super::wire::Exit;

/// Forks the launcher.
///
/// # Errors
/// The system's.
pub(super) fn fork_launcher() -> nix::Result<ForkResult> {
    // SAFETY: the launcher never starts a thread, so the child may do whatever the parent may.
    unsafe { fork() }
}

/// Gives the command every signal in its default state and none blocked: Rust ignores SIGPIPE, and who starts the agent
/// in the background may have ignored more.
///
/// # Errors
/// The system's.
pub(super) fn reset_signals() -> nix::Result<()> {
    for each in Signal::iterator().filter(|each| !matches!(each, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: sets the default action; no handler of ours is installed or replaced.
        unsafe { signal(each, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()
}

/// Takes the exit status of one child that has ended; `None` when none has yet. The wrapper of `nix` has no word for
/// real-time signals, and loses the child.
///
/// # Errors
/// [`Errno::ECHILD`] when there are no children.
pub(super) fn wait_any() -> nix::Result<Option<(i32, Exit)>> {
    let mut status: c_int = 0;
    // SAFETY: writes the one integer that it is given.
    let pid = Errno::result(unsafe { waitpid(-1, &raw mut status, WNOHANG) })?;
    let exit =
        if WIFEXITED(status) { Exit::Code(WEXITSTATUS(status)) } else { Exit::Signal(WTERMSIG(status)) };
    Ok((pid != 0).then_some((pid, exit)))
}
