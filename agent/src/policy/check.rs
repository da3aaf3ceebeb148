//! `signet-agent policy check` and `check-deploy`: what would happen to a command or a deployment, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use signet_common::deploy::{
    BadDeploy, CommitId, Deploy, DeployPath, GitUrl, Health, Phase, Probe, Releases, Strategy,
};
use signet_common::ids::{Jti, TaskId};
use signet_common::messages::Command;

use super::{Denied, Policy};

/// A commit like any other: no rule asks which one it is.
const ANY_COMMIT: &str = "0000000000000000000000000000000000000000";

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

/// A deployment that is asked about, in the words of `signet deploy`.
#[derive(Debug, Clone, Args)]
pub struct DeployQuestion {
    /// The repository, as https://… or git@…
    pub repository: GitUrl,
    /// Where it is to go
    #[arg(long, value_name = "DIR")]
    pub path: DeployPath,
    /// Make releases, instead of changing the directory itself
    #[arg(long)]
    pub releases: bool,
    /// Shell text to run in the new release before it is current; may be given several times
    #[arg(long, requires = "releases", value_name = "TEXT")]
    pub build: Vec<String>,
    /// Shell text to run in the new release once it is current; may be given several times
    #[arg(long, requires = "releases", value_name = "TEXT")]
    pub activate: Vec<String>,
    /// Shell text that ends well when the new release works
    #[arg(long, requires = "releases", conflicts_with = "health_url", value_name = "TEXT")]
    pub health_command: Option<String>,
    /// Address that the host answers with 200 when the new release works
    #[arg(long, requires = "releases", value_name = "URL")]
    pub health_url: Option<String>,
    /// Run the filters that this host's git knows, such as Git LFS
    #[arg(long)]
    pub filters: bool,
    /// As whom it is to deploy [default: the agent's own user]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

impl DeployQuestion {
    fn strategy(&mut self) -> Strategy {
        if !self.releases {
            return Strategy::InPlace;
        }
        let http = |url| Probe::Http { url, expect_status: 200 };
        let probe =
            self.health_command.take().map(Probe::Command).or_else(|| self.health_url.take().map(http));
        Strategy::Releases(Releases {
            build: std::mem::take(&mut self.build),
            activate: std::mem::take(&mut self.activate),
            health: probe.map(|probe| Health { probe, timeout: 1, attempts: 1, pause: 0 }),
            ..Releases::default()
        })
    }

    /// The message that such a deployment comes as.
    fn message(mut self) -> Result<Deploy, BadDeploy> {
        let strategy = self.strategy();
        let deploy = Deploy {
            iss: "controller".into(),
            aud: Vec::new(),
            iat: 0,
            exp: 0,
            jti: Jti::generate(),
            task_id: TaskId::generate(),
            phase: Phase::Deploy,
            reference: None,
            commit: Some(ANY_COMMIT.parse::<CommitId>()?),
            path: self.path,
            strategy,
            rollback: false,
            force: false,
            submodules: false,
            filters: self.filters,
            allowed_signers: None,
            // Which ones may be used is the controller's rule and not this host's.
            protocols: vec![self.repository.protocol()],
            repository: self.repository,
            credential: None,
            user: self.user,
            timeout: 0,
            approval: None,
        };
        deploy.check().map(|()| deploy)
    }
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether it may run or be deployed, with the approvals below.
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
        self.answer(self.lists(&command, own_user), command.user, own_user)
    }

    /// What would happen to a deployment here, by the very rules of a real one; also where its path leads by now, as far as
    /// whoever asks may look.
    #[must_use]
    pub fn check_deploy(&self, question: DeployQuestion, own_user: &str) -> Answer {
        let user = question.user.clone();
        let listed = question.message().map_err(|bad| Denied(bad.to_string())).and_then(|deploy| {
            self.lists_deploy(&deploy, own_user)?;
            self.deploy_roots.lead(Path::new(deploy.path.as_str()))
        });
        self.answer(listed.map(drop), user, own_user)
    }

    fn answer(&self, listed: Result<(), Denied>, user: Option<String>, own_user: &str) -> Answer {
        let people = self.approvers.iter().flat_map(|a| a.people());
        Answer {
            allowed: listed.is_ok(),
            reason: listed.err().map(|denied| denied.0),
            user: user.unwrap_or_else(|| own_user.to_owned()),
            file: self.file.clone(),
            approvals: self.approvers.as_ref().map_or(0, super::Approvers::count),
            approvers: people.map(|p| p.as_str().to_owned()).collect(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => {
                // It may name where a link leads, which is anybody's text.
                let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
                writeln!(f, "refused: {}", reason.chars().map(shown).collect::<String>())?;
            }
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
