//! Every payload of the wire, field by field. Names are those of the HTTP API.
//!
//! Types that agents read refuse unknown fields (`rejected: unsupported`); types that the controller reads ignore them,
//! so that a newer agent can work with an older controller of the same minor version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::chain::ChainHash;
use crate::envelope::DsseJson;
use crate::ids::{AgentId, Hostname, Jti, LogId, StartId, TaskId};

/// What this version of the agent understands, as named in heartbeats. Hosts are not sent what they don't list.
pub const FEATURES: &[&str] = &[
    "command",
    "argv",
    "env",
    "cwd",
    "stdin",
    "output_limit",
    "detached",
    "resume",
    "keyring",
    "approval",
    "deploy",
];

/// `command`: run this on each host in `aud`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// `controller`.
    pub iss: String,
    /// The hosts that may run it.
    pub aud: Vec<AgentId>,
    /// Issued, whole seconds since 1970.
    pub iat: i64,
    /// The last second in which it may start.
    pub exp: i64,
    /// The message's id: started at most once on each host.
    pub jti: Jti,
    /// The task it belongs to.
    pub task_id: TaskId,
    /// A text for `/bin/sh -c`. Exactly one of `command` and `argv` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A program and its arguments, without a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Added to the clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; absent = the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Written to the command's standard input, which is then closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Seconds from the start of the process until it is ended.
    pub timeout: u32,
    /// Account to run as; absent = the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Output kept per stream, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u64>,
    /// Run in a systemd unit of its own and don't follow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// What people agreed to before it was sent; see [`crate::statement`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<crate::statement::Approval>,
}

/// `cancel`: end the message `cancels`, whether it runs, waits or has not come yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// `controller`.
    pub iss: String,
    /// The hosts.
    pub aud: Vec<AgentId>,
    /// Issued, whole seconds since 1970.
    pub iat: i64,
    /// The last second in which it counts.
    pub exp: i64,
    /// This cancel's own id.
    pub jti: Jti,
    /// What to end.
    pub cancels: Jti,
    /// The `exp` of what to end: so long an id that never came stays known.
    pub cancels_exp: i64,
}

/// `resume`: report again from the event after `seq`. Without a log: say hello, and begin a new log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// `controller`.
    pub iss: String,
    /// The host.
    pub aud: Vec<AgentId>,
    /// Issued, whole seconds since 1970.
    pub iat: i64,
    /// The last second in which it counts.
    pub exp: i64,
    /// This message's own id.
    pub jti: Jti,
    /// The log that the controller follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_id: Option<LogId>,
    /// The last event that the controller has.
    #[serde(default)]
    pub seq: u64,
    /// The chain at `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainHash>,
}

/// `keyring`: the next version of the keyring, itself a signed message by the old and the new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringPush {
    /// `controller`.
    pub iss: String,
    /// The hosts.
    pub aud: Vec<AgentId>,
    /// Issued, whole seconds since 1970.
    pub iat: i64,
    /// The last second in which it counts.
    pub exp: i64,
    /// This message's own id.
    pub jti: Jti,
    /// One step of the chain.
    pub keyring: DsseJson,
}

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

/// How an agent ends what it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A cgroup per command, ended with `cgroup.kill`.
    Cgroup,
    /// Process group, subreaper and a walk through /proc.
    ProcessGroup,
}

/// Why an agent takes no work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusyReason {
    /// Its disk is full.
    DiskFull,
    /// Its journal holds as much unconfirmed as it may.
    JournalFull,
    /// As many accepted messages wait as may.
    QueueFull,
    /// It is stopping.
    Stopping,
    /// It has just started and waits for the controller's word on its log.
    Starting,
}

/// `heartbeat`: every 10 s. Only the newest of a start counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The agent's id.
    pub iss: String,
    /// `["controller"]`.
    pub aud: Vec<String>,
    /// The agent's clock, whole seconds since 1970.
    pub iat: i64,
    /// The heartbeat's own id.
    pub jti: Jti,
    /// The start of the agent's program that sends it.
    pub start_id: StartId,
    /// Grows with each report and heartbeat of this start.
    pub n: u64,
    /// The journal.
    pub log_id: LogId,
    /// The last synced event.
    pub head: u64,
    /// The chain at `head`.
    pub chain: ChainHash,
    /// The agent's name for itself.
    pub hostname: Hostname,
    /// The agent's version.
    pub version: String,
    /// What it understands.
    pub features: Vec<String>,
    /// The newest keyring that it holds.
    pub keyring: u64,
    /// True in the last heartbeat of an agent that stops.
    #[serde(default)]
    pub stopping: bool,
    /// Why it takes no work; absent when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<BusyReason>,
    /// Whether a policy file narrows it.
    #[serde(default)]
    pub narrowed: bool,
    /// How commands are ended.
    pub isolation: Isolation,
    /// Accepted and waiting for a slot.
    pub waiting: u32,
    /// Running.
    pub running: u32,
    /// CPU in use, 0 to 100.
    pub cpu_usage: f64,
    /// Memory in use, 0 to 100.
    pub memory_usage: f64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Use of the data directory's disk, 0 to 100.
    pub disk_usage: f64,
    /// Seconds since the host booted.
    pub uptime: u64,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Messages not believed since this start, by [`crate::envelope::Refusal::label`].
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// How deployed paths stand, at most [`crate::limits::DEPLOY_STANDINGS_MAX`]: first what differs, then the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deploys: Vec<crate::deploy::Standing>,
}

/// `hello`: an agent introduces itself. Signed with its own key, sent as DSSE JSON to `POST /api/agents/hello`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's id.
    pub iss: String,
    /// `["controller"]`.
    pub aud: Vec<String>,
    /// The agent's clock; hello is never refused for it.
    pub iat: i64,
    /// The hello's own id.
    pub jti: Jti,
    /// The agent's public key in PEM: with it the signature is checked when the key is new.
    pub public_key: String,
    /// The name it asks for.
    pub hostname: Hostname,
    /// The group it asks for; counts at enrolment only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Fetched from `GET /api/agents/nonce` just before; counts once.
    pub controller_nonce: String,
    /// The agent's own; the answer repeats it.
    pub nonce: String,
    /// Public half of the agent's X25519 key in base64, to which the answer's secrets are sealed.
    pub sealing_key: String,
    /// Proof that it knows the join token; see [`crate::join`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<crate::join::JoinProof>,
    /// This start of the program.
    pub start_id: StartId,
    /// The journal.
    pub log_id: LogId,
    /// Its last synced event.
    pub head: u64,
    /// The chain at `head`.
    pub chain: ChainHash,
    /// Whether no hello of this journal was answered yet: everything issued before the answer is then refused.
    #[serde(default)]
    pub new_log: bool,
    /// The newest keyring that the agent holds; 0 = none.
    pub keyring: u64,
    /// The agent's version.
    pub version: String,
    /// What it understands.
    pub features: Vec<String>,
}

/// `leave`: an agent asks that its own key be revoked. Signed with that key, sent as DSSE JSON to
/// `POST /api/agents/leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The agent's id.
    pub iss: String,
    /// `["controller"]`.
    pub aud: Vec<String>,
    /// The agent's clock; it is never refused for it.
    pub iat: i64,
    /// The message's own id.
    pub jti: Jti,
    /// The agent's public key in PEM, with which the signature is checked.
    pub public_key: String,
    /// Fetched from `GET /api/agents/nonce` just before; counts once.
    pub controller_nonce: String,
}

/// Where an agent stands with the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Its key belongs to its hostname.
    Accepted,
    /// An admin has to compare fingerprints first; it gets nothing until then.
    Pending,
    /// Its log does not fit what the controller knows; it gets no work until an admin accepts it.
    SetAside,
}

/// `welcome`: the controller's answer to a hello, as DSSE JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// `controller`.
    pub iss: String,
    /// The agent.
    pub aud: Vec<AgentId>,
    /// The controller's clock, whole seconds since 1970.
    pub iat: i64,
    /// The answer's own id; part of what seals [`Welcome::broker`].
    pub jti: Jti,
    /// The agent's nonce, repeated.
    pub nonce: String,
    /// Where the agent stands.
    pub standing: Standing,
    /// Why, when it is not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The broker's address with credentials, sealed to the agent's key (see [`crate::seal`]). Absent when it gets none,
    /// or when the bus is the controller's own process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<crate::seal::Sealed>,
    /// The last event of the agent's log that the controller has; 0 = none.
    pub cursor: u64,
    /// The chain at `cursor`. Absent when the controller doesn't know this log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainHash>,
    /// The agent must begin a new log before it takes anything.
    #[serde(default)]
    pub new_log: bool,
    /// The newest keyring's version.
    pub keyring: u64,
}

/// Bytes as standard base64 in JSON.
pub mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes base64.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    /// Reads strict base64.
    ///
    /// # Errors
    /// When the text is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}
