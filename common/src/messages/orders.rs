//! What agents are told: start, end, report again, trust the next keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chain::ChainHash;
use crate::envelope::DsseJson;
use crate::ids::{AgentId, Jti, LogId, TaskId};

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
