//! What is read of the API's objects. `--output json` passes the objects themselves on, whole.

use nix::sys::signal::Signal;
use serde::Deserialize;

/// A server in the list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Server {
    pub hostname: String,
    #[serde(default)]
    pub ip: String,
    #[serde(default)]
    pub group: String,
    pub status: String,
    pub last_heartbeat: Option<String>,
    pub cpu_usage: Option<f64>,
    pub memory_usage: Option<f64>,
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// A policy file narrows what runs there.
    #[serde(default)]
    pub narrowed: bool,
    /// Nothing is sent there until an admin accepts it.
    #[serde(default)]
    pub set_aside: bool,
}

/// A task.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Task {
    pub task_id: String,
    pub target_type: String,
    pub target: Option<String>,
    pub command: String,
    pub timeout: u32,
    pub user: Option<String>,
    pub status: String,
    pub created_at: String,
    /// Who must agree before it runs, if somebody must.
    #[serde(default)]
    pub approval: Option<Approval>,
}

/// A request for approval.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Approval {
    pub task_id: String,
    /// `command` or `deploy`
    #[serde(default)]
    pub kind: String,
    /// `awaiting`, `approved`, `refused` or `ended`
    pub state: String,
    pub requester: String,
    pub needed: u32,
    pub agents: u64,
    pub not_after: String,
    pub approvals: Vec<Given>,
}

/// Somebody who agreed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Given {
    pub name: String,
}

impl Task {
    /// Whether a host has still to answer.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "awaiting_approval" | "pending" | "sent" | "received")
    }

    /// The target as it is written on the command line.
    pub(crate) fn target(&self) -> String {
        let text = self.target.as_deref().unwrap_or_default();
        match self.target_type.as_str() {
            "group" => format!("@{text}"),
            "label" => format!("label:{text}"),
            "all" => "all".into(),
            _ => text.into(),
        }
    }
}

/// A task with its hosts.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TaskDetail {
    #[serde(flatten)]
    pub task: Task,
    #[serde(default)]
    pub paused: Option<String>,
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// One host of a task.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Target {
    pub hostname: String,
    pub state: String,
    #[serde(default)]
    pub reason: String,
    pub exit_code: Option<i64>,
    #[serde(default)]
    pub signal: Option<i32>,
    #[serde(default)]
    pub cancelling: bool,
    #[serde(default)]
    pub started_at: Option<String>,
    #[serde(default)]
    pub finished_at: Option<String>,
}

impl Target {
    /// Whether nothing more happens to it.
    pub(crate) fn is_final(&self) -> bool {
        !matches!(self.state.as_str(), "waiting" | "sent" | "accepted" | "running")
    }

    /// Whether it ended well.
    pub(crate) fn succeeded(&self) -> bool {
        self.state == "succeeded"
    }

    /// How it ended, in a few words; empty when it ended well.
    pub(crate) fn ending(&self) -> String {
        let end = match (self.state.as_str(), self.signal, self.exit_code) {
            ("succeeded", _, _) => return String::new(),
            ("failed", Some(signal), _) => match Signal::try_from(signal) {
                Ok(name) => format!("killed by {}", name.as_str()),
                Err(_) => format!("killed by signal {signal}"),
            },
            ("failed", None, Some(code)) => format!("exit {code}"),
            (state, _, _) => state.replace('_', " "),
        };
        if self.reason.is_empty() { end } else { format!("{end}: {}", self.reason) }
    }
}

/// A piece of a command's output.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Piece {
    pub hostname: String,
    pub stream: signet_common::messages::Stream,
    pub offset: u64,
    #[serde(with = "signet_common::messages::base64_bytes")]
    pub data: Vec<u8>,
}

/// The switch that holds dispatch.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Switch {
    pub paused: bool,
    #[serde(default)]
    pub reason: Option<String>,
    /// Why nothing is sent whatever the switch says.
    #[serde(default)]
    pub held: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_readable() {
        let end = |state: &str, exit_code, signal, reason: &str| {
            let target = Target {
                hostname: "a".into(),
                state: state.into(),
                reason: reason.into(),
                exit_code,
                signal,
                cancelling: false,
                started_at: None,
                finished_at: None,
            };
            target.ending()
        };
        assert_eq!(end("succeeded", Some(0), None, ""), "");
        assert_eq!(end("failed", Some(3), None, ""), "exit 3");
        assert_eq!(end("failed", Some(137), Some(9), ""), "killed by SIGKILL");
        assert_eq!(end("timed_out", Some(-2), None, ""), "timed out");
        assert_eq!(end("rejected", Some(-1), None, "no_agent"), "rejected: no_agent");
    }
}
