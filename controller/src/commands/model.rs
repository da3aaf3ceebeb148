//! Tasks as they are stored and answered.

use serde::{Deserialize, Serialize};
use signet_common::time::Micros;
use signet_common::{Hostname, TaskId};
use utoipa::ToSchema;

use crate::approvals::ApprovalView;

/// Which hosts a task is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    /// One host.
    Node,
    /// All of a group.
    Group,
    /// Every host.
    All,
    /// All with a label, `name=value`.
    Label,
}

impl TargetType {
    /// As on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Group => "group",
            Self::All => "all",
            Self::Label => "label",
        }
    }

    /// From the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Node, Self::Group, Self::All, Self::Label].into_iter().find(|t| t.as_str() == text)
    }
}

/// Where a task stands, in the document's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It waits for the approval of others.
    AwaitingApproval,
    /// Stored, but dispatch is paused or the bus is down.
    Pending,
    /// Stored and signed: every host gets it as soon as it is online.
    Sent,
    /// A host took it.
    Received,
    /// Every target was refused.
    Rejected,
    /// No target ever started.
    Expired,
    /// Every target was cancelled.
    Cancelled,
    /// Every target is final otherwise.
    Done,
}

/// What a task was asked for beyond the document, as it is stored and shown. Values of `env` and `stdin` are not: they
/// may be secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Options {
    /// Program and arguments, instead of a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Names of the variables that were set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Size of the standard input in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_bytes: Option<u64>,
    /// Seconds in which it may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u32>,
    /// Hosts at a time: `5` or `20%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Failures above which nothing more is released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Output kept per stream, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u64>,
    /// Runs in a unit of its own and is not followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
}

/// A task as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub task_id: TaskId,
    /// Which kind of target.
    pub target_type: TargetType,
    /// The host, group or label; none with `all`.
    pub target: Option<String>,
    /// The text for the shell, or `argv` quoted for one.
    pub command: String,
    /// Seconds from the start until it is ended.
    pub timeout: u32,
    /// The account it runs as; none = the agent's own.
    pub user: Option<String>,
    /// When it was asked for.
    pub created_at: Micros,
    /// Everything else.
    pub options: Options,
}

/// A task in an answer: the document's eight fields first, in its order.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskView {
    /// Opaque.
    #[schema(value_type = String)]
    pub task_id: TaskId,
    /// `node`, `group`, `all` or `label`.
    pub target_type: TargetType,
    /// The host, group or label; null with `all`.
    pub target: Option<String>,
    /// What runs.
    pub command: String,
    /// Seconds.
    pub timeout: u32,
    /// Null = the agent's own account.
    pub user: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// UTC, whole seconds.
    pub created_at: String,
    /// Everything beyond the document.
    #[serde(flatten)]
    pub options: Options,
    /// Who must agree, and who did; only of one task, and only if it needed approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

impl Task {
    /// With its status.
    #[must_use]
    pub fn view(self, status: TaskStatus) -> TaskView {
        TaskView {
            task_id: self.task_id,
            target_type: self.target_type,
            target: self.target,
            command: self.command,
            timeout: self.timeout,
            user: self.user,
            status,
            created_at: self.created_at.rfc3339(),
            options: self.options,
            approval: None,
        }
    }
}

/// One host of a task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TargetView {
    /// The host's agent when it was asked for; null without one.
    pub agent_id: Option<String>,
    /// The host.
    #[schema(value_type = String)]
    pub hostname: Hostname,
    /// `waiting`, `sent`, `accepted`, `running` or one of the ends.
    pub state: &'static str,
    /// Why, for a person; empty when the state says it all.
    pub reason: String,
    /// The document's exit code; null until it is final.
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Which batch, from 0.
    pub batch: i64,
    /// A cancel was asked for and not answered yet.
    pub cancelling: bool,
    /// By the agent's clock.
    pub accepted_at: Option<String>,
    /// By the agent's clock.
    pub started_at: Option<String>,
    /// By the agent's clock, or the controller's where it inferred the end.
    pub finished_at: Option<String>,
}

impl From<&crate::dispatch::Target> for TargetView {
    fn from(target: &crate::dispatch::Target) -> Self {
        let d = &target.delivery;
        let time = |at: Option<Micros>| at.map(Micros::rfc3339);
        Self {
            agent_id: target.agent_id.as_ref().map(ToString::to_string),
            hostname: target.hostname.clone(),
            state: d.state.as_str(),
            reason: d.reason.clone(),
            exit_code: d.state.is_final().then(|| super::status::exit_code(d)),
            signal: d.signal,
            batch: target.batch,
            cancelling: d.cancel_at.is_some() && !d.state.is_final(),
            accepted_at: time(d.accepted_at),
            started_at: time(d.started_at),
            finished_at: time(d.finished_at),
        }
    }
}

/// A task with its hosts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskDetail {
    /// The task itself.
    #[serde(flatten)]
    pub task: TaskView,
    /// Why nothing is dispatched now, when the whole installation is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// How many hosts are in each state.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    pub counts: std::collections::BTreeMap<&'static str, u64>,
    /// The hosts by name, at most 10,000.
    pub targets: Vec<TargetView>,
}
