//! What agent and launcher say to each other: frames of a length (u32, little-endian) and JSON; orders are one byte.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use rustix::process::WaitStatus;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::LAUNCH_FRAME_BYTES_MAX;

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A text for `/bin/sh -c`.
    Shell(String),
    /// A program, looked up in the command's own `PATH`, and its arguments.
    Argv(Vec<String>),
    /// This very program, as the one that deploys ([`crate::deploy`]): its plan is the standard input, and its report
    /// goes to this file, which the agent's own account creates.
    Deploy(PathBuf),
}

/// What the launcher is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// What to execute.
    pub(crate) program: Program,
    /// Added to the clean environment.
    pub(crate) env: Vec<(String, String)>,
    /// Absent = the user's home.
    pub(crate) cwd: Option<PathBuf>,
    /// Absent = `/dev/null`.
    pub(crate) stdin: Option<String>,
    /// Absent = stay who the agent is.
    pub(crate) user: Option<String>,
    /// How the command's processes are kept together.
    pub(crate) keep: Keep,
}

/// How the command's processes are kept together.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Keep {
    /// By this cgroup's directory.
    Cgroup(PathBuf),
    /// By the launcher.
    Tree,
}

/// What the launcher answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The launcher's first word: its process id, by which the agent waits for it.
    Launched(i32),
    /// Nothing was executed, and why.
    Failed(String),
    /// About to execute. In a cgroup the end of the stream without `Failed` says that it worked; from a launcher that
    /// stays it says that the launcher was killed, maybe by the command.
    Executing,
    /// It runs under this process id, which is also its session.
    Started(i32),
    /// The main process is over.
    Exited(Exit),
    /// No process is left, or these many could not be ended. The launcher ends.
    Empty {
        /// Killed apart from the main process.
        killed: u64,
        /// Still there.
        left: u64,
    },
}

/// How a main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody knows: the launcher was killed.
    Lost,
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        // Real-time signals are told like all others.
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Lost,
        }
    }
}

/// TERM to every process of the tree.
pub(crate) const ORDER_TERM: u8 = b'T';
/// KILL to every process of the tree, until none is left.
pub(crate) const ORDER_KILL: u8 = b'K';

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A value as a frame.
pub(crate) fn frame<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= LAUNCH_FRAME_BYTES_MAX => frame[..4].copy_from_slice(&prefix.to_le_bytes()),
        _ => return Err(invalid("frame too long")),
    }
    Ok(frame)
}

/// Takes one frame off the front of what was received so far; `None` when it is not whole yet.
pub(crate) fn take<T: DeserializeOwned>(received: &mut bytes::BytesMut) -> io::Result<Option<T>> {
    let Some(prefix) = received.first_chunk::<4>() else { return Ok(None) };
    let length = frame_length(*prefix)?;
    if received.len() < 4 + length {
        return Ok(None);
    }
    let frame = received.split_to(4 + length);
    Ok(Some(serde_json::from_slice(&frame[4..])?))
}

/// Writes one frame.
pub(crate) fn write<T: Serialize>(to: &mut impl Write, value: &T) -> io::Result<()> {
    to.write_all(&frame(value)?)
}

/// Reads one frame; `None` at the end of the stream.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0; frame_length(prefix)?];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

fn frame_length(prefix: [u8; 4]) -> io::Result<usize> {
    usize::try_from(u32::from_le_bytes(prefix))
        .ok()
        .filter(|length| *length <= LAUNCH_FRAME_BYTES_MAX)
        .ok_or_else(|| invalid("frame too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_however_they_arrive() {
        let said = [Reply::Executing, Reply::Failed("no".into()), Reply::Empty { killed: 3, left: 0 }];
        let bytes: Vec<u8> = said.iter().flat_map(|reply| frame(reply).unwrap()).collect();
        let mut received = bytes::BytesMut::new();
        let mut heard = Vec::new();
        for byte in &bytes {
            received.extend_from_slice(&[*byte]);
            heard.extend(take::<Reply>(&mut received).unwrap());
        }
        assert_eq!(heard, said);
        assert_eq!(read::<Reply>(&mut bytes.as_slice()).unwrap(), Some(Reply::Executing));
        assert_eq!(read::<Reply>(&mut [].as_slice()).unwrap(), None);
    }

    #[test]
    fn a_length_beyond_the_limit_is_not_believed() {
        let mut received = bytes::BytesMut::from(&[0xff; 8][..]);
        assert!(take::<Reply>(&mut received).is_err());
    }
}
