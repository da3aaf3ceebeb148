//! The calls that have no safe wrapper.
#![allow(
    unsafe_code,
    reason = "fork, clone and signal dispositions; the launcher has one thread and no handlers"
)]

use nix::errno::Errno;
use nix::libc::{CLONE_PARENT, SIGCHLD, SYS_clone, c_long, syscall};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{ForkResult, fork};

use super::wire::Reply;

/// Forks the launcher.
///
/// # Errors
/// The system's.
pub(super) fn fork_launcher() -> nix::Result<ForkResult> {
    // SAFETY: the launcher never starts a thread, so the child may do whatever the parent may.
    unsafe { fork() }
}

/// Forks a child of this process's parent. True in the child.
///
/// # Errors
/// The system's.
pub(super) fn fork_sibling() -> nix::Result<bool> {
    const NONE: c_long = 0;
    let flags = c_long::from(CLONE_PARENT | SIGCHLD);
    // s390 alone takes the stack before the flags.
    let (first, second) = if cfg!(target_arch = "s390x") { (NONE, flags) } else { (flags, NONE) };
    // SAFETY: without CLONE_VM and with no new stack this is a fork: the child has its own copy of everything and goes on
    // here. The server never starts a thread, so no lock is held by another one. The C library is not told: in the child
    // it runs no fork handlers, which nobody has registered, and it still takes the server's for the id of the only thread.
    // It compares that id with itself alone, in locks that may be taken twice, and a fork that goes through it
    // ([`fork_launcher`]) sets it right; the child does nothing but prepare an exec, or fork once more and poll.
    let child = Errno::result(unsafe { syscall(SYS_clone, first, second, NONE, NONE, NONE) })?;
    Ok(child == 0)
}

/// What is told when one of the two fails: the host has no room for another process, or the agent's unit has none.
pub(super) fn no_process(error: Errno) -> Reply {
    Reply::Failed(format!("no process for the command: {}", std::io::Error::from(error)))
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
