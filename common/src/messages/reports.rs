//! What agents report: the entries of their journals, and how commands ended.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::base64_bytes;
use crate::chain::ChainHash;
use crate::ids::{Jti, LogId, StartId};

/// Which of a command's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How a started (or never to be started) message ended, in the agent's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or a signal.
    Failed,
    /// Ended at its `timeout`.
    TimedOut,
    /// Ended, or never started, on an admin's word.
    Cancelled,
    /// It was running when the agent stopped or the host rebooted.
    Interrupted,
    /// Never started: its `exp` passed while it waited.
    Expired,
}

/// Why an agent refused what it had verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The host's own policy says no.
    Policy,
    /// A field or type that this agent doesn't know.
    Unsupported,
    /// It could not be started: no such user, no right to become it, no such directory or program.
    Exec,
    /// Issued before this log began.
    NewLog,
}

/// What is kept of one stream, stated in the `result`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// Bytes that the command wrote, kept or not.
    pub bytes: u64,
    /// Offset of the first byte that was not kept. Absent when all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_from: Option<u64>,
    /// How many bytes were not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted_bytes: u64,
    /// SHA-256 over everything that the command wrote, in hex.
    pub sha256: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How a command ended: the body of a `result` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The end.
    pub outcome: Outcome,
    /// More about it, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The exit code; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Standard output in base64, when it stands here and not in `output` events.
    #[serde(default, with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
    pub stdout: Vec<u8>,
    /// Standard error in base64, likewise.
    #[serde(default, with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
    pub stderr: Vec<u8>,
    /// Sizes and digest of standard output.
    #[serde(default)]
    pub stdout_summary: StreamSummary,
    /// Sizes and digest of standard error.
    #[serde(default)]
    pub stderr_summary: StreamSummary,
    /// Processes that were still there when the command was over, and were killed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub killed: u64,
    /// From the start to the end, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// What a deployment did; absent for commands, and when it ended before it could say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Box<crate::deploy::Deployed>>,
}

/// One entry of an agent's journal. `at` is the agent's clock in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The message is in the journal and will be started, or ended with a reason.
    Accepted {
        /// Which message.
        jti: Jti,
        /// When.
        at: i64,
    },
    /// The process is about to be spawned. Stands in the journal before that happens.
    Started {
        /// Which message.
        jti: Jti,
        /// When.
        at: i64,
    },
    /// A piece of output, or only the count of bytes so far where pieces are left out.
    Output {
        /// Which message.
        jti: Jti,
        /// Which stream.
        stream: Stream,
        /// Offset of the piece, or the bytes written so far.
        offset: u64,
        /// At most 64 KiB, in base64.
        #[serde(default, with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
        data: Vec<u8>,
    },
    /// It is over.
    Result {
        /// Which message.
        jti: Jti,
        /// When.
        at: i64,
        /// How.
        #[serde(flatten)]
        result: Box<CommandResult>,
    },
    /// It was refused and never started.
    Rejected {
        /// Which message.
        jti: Jti,
        /// When.
        at: i64,
        /// Why.
        reason: Rejection,
        /// The rule or the fault, for a person.
        detail: String,
    },
    /// The events `from` to `to` (this event's `seq`) are gone.
    Gap {
        /// First lost event.
        from: u64,
        /// Last lost event.
        to: u64,
        /// The chain at `to`; on the wire it is the event's own `chain`.
        #[serde(skip)]
        chain_at_to: ChainHash,
    },
}

impl Event {
    /// Which message it is about.
    #[must_use]
    pub fn jti(&self) -> Option<&Jti> {
        match self {
            Self::Accepted { jti, .. }
            | Self::Started { jti, .. }
            | Self::Output { jti, .. }
            | Self::Result { jti, .. }
            | Self::Rejected { jti, .. } => Some(jti),
            Self::Gap { .. } => None,
        }
    }
}

/// `report`: events of one log in order, without a hole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The agent's id.
    pub iss: String,
    /// `["controller"]`.
    pub aud: Vec<String>,
    /// Issued, whole seconds since 1970. A report is taken at any age.
    pub iat: i64,
    /// The report's own id.
    pub jti: Jti,
    /// The start of the agent's program that sends it.
    pub start_id: StartId,
    /// Grows with each report and heartbeat of this start.
    pub n: u64,
    /// The log.
    pub log_id: LogId,
    /// The events' exact texts; see [`crate::chain`].
    pub events: Vec<Box<RawValue>>,
}
