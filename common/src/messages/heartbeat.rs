//! How an agent is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chain::ChainHash;
use crate::ids::{Hostname, Jti, LogId, StartId};

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
