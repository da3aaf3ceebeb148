//! The server: waits, and forks a launcher for each command. It does nothing else, so that nothing can hold it up, and
//! its pages stay few.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getpid, setsid};

use super::streams::{self, Streams};
use super::sys;
use super::wire::{self, Reply};

/// Serves until the agent is gone or wants no more. Comes back with a socket to the agent in a launcher, with `None` in
/// the server itself.
///
/// # Errors
/// The system's, in either.
pub(super) fn serve() -> io::Result<Option<UnixStream>> {
    while let Some(streams) = streams::receive(io::stdin().as_fd())? {
        match sys::fork_sibling() {
            Ok(true) => return enter(streams).map(Some),
            Ok(false) => {}
            Err(error) => {
                // Who gave up meanwhile needs no answer.
                wire::write(&mut &UnixStream::from(streams.control), &sys::no_process(error)).ok();
            }
        }
    }
    Ok(None)
}

/// What tells a launcher from the server: its own streams, among them nothing of the server's, and its own session.
fn enter(streams: Streams) -> io::Result<UnixStream> {
    dup2_stdin(&streams.control)?;
    dup2_stdout(&streams.stdout)?;
    dup2_stderr(&streams.stderr)?;
    let control = UnixStream::from(streams.control);
    // Still in the server's process group: whoever ends before the agent knows it is waited for as one of that group.
    wire::write(&mut &control, &Reply::Launched(getpid().as_raw()))?;
    setsid()?;
    Ok(control)
}
