//! The two calls that the type system cannot vouch for.
#![allow(unsafe_code, reason = "fork and signal dispositions; the launcher has one thread and no handlers")]

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, fork};

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
