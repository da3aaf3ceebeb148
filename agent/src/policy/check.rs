//! `signet-agent policy check`: what would happen to a command, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use signet_common::ids::{Jti, TaskId};
use signet_common::messages::Command;

use super::Policy;

/// What is asked: a shell command, or a program with its arguments.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// A text for the shell.
    pub command: Option<String>,
    /// A program and its arguments.
    pub argv: Option<Vec<String>>,
    /// As whom; absent = the agent's own account.
    pub user: Option<String>,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether it may run, with the approvals below.
    pub allowed: bool,
    /// The rule that refuses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As whom it would run.
    pub user: String,
    /// The policy file that decides; absent = no file narrows what runs here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How many people must have approved it.
    pub approvals: usize,
    /// Who may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
}

impl Policy {
    /// What would happen to a command here, by the very rules of a real one. `own_user` is the agent's account.
    #[must_use]
    pub fn check(&self, question: Question, own_user: &str) -> Answer {
        let Question { command, argv, user } = question;
        let command = Command {
            iss: "controller".into(),
            aud: Vec::new(),
            iat: 0,
            exp: 0,
            jti: Jti::generate(),
            task_id: TaskId::generate(),
            command,
            argv,
            env: BTreeMap::new(),
            cwd: None,
            stdin: None,
            timeout: 0,
            user,
            output_limit: None,
            detached: false,
            approval: None,
        };
        let listed = self.lists(&command, own_user);
        let people = self.approvers.iter().flat_map(|a| a.people());
        Answer {
            allowed: listed.is_ok(),
            reason: listed.err().map(|denied| denied.0),
            user: command.user.unwrap_or_else(|| own_user.to_owned()),
            file: self.file.clone(),
            approvals: self.approvers.as_ref().map_or(0, super::Approvers::count),
            approvers: people.map(|p| p.as_str().to_owned()).collect(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => writeln!(f, "refused: {reason}")?,
            None => writeln!(f, "allowed as {}", self.user)?,
        }
        if self.approvals > 0 {
            writeln!(f, "needs {} approvals by {}", self.approvals, self.approvers.join(", "))?;
        }
        match &self.file {
            Some(file) => write!(f, "policy: {}", file.display()),
            None => f.write_str("policy: no file; any user and any command may run"),
        }
    }
}
