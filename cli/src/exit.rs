//! How the program ends.

use std::io;
use std::process::ExitCode;

use crate::client::ClientError;

/// What the exit code tells. Usage errors (2) and faults (3) are [`Failure`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: it worked; with `run`: on every host.
    Success,
    /// 1: some host failed, or the doctor found something.
    SomeFailed,
    /// 4: not every host has answered.
    Unfinished,
    /// 130: ended by Ctrl-C, as shells say it.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::SomeFailed => 1,
            Exit::Unfinished => 4,
            Exit::Interrupted => 130,
        })
    }
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The controller is away or says no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Writing or reading failed on this side.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// `signet up` could not start or ended.
    #[error("{0:#}")]
    Up(anyhow::Error),
}

impl Failure {
    /// The exit code, and whether there is somebody to tell.
    pub(crate) fn code(&self) -> (u8, bool) {
        match self {
            Self::Usage(_) | Self::Client(ClientError::Url(_)) => (2, true),
            // Whoever read our output has enough of it; what a program killed by SIGPIPE says.
            Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => (141, false),
            Self::Client(_) | Self::Io(_) => (3, true),
            Self::Up(_) => (1, true),
        }
    }
}
