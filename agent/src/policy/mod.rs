//! The host's own word on what may run here: `policy.toml`.
//!
//! ```toml
//! users = ["deploy"]                      # accounts to run as; absent = any
//! shell = "any"                           # "off", "any", or a list of exact texts
//! argv = [["systemctl", "restart", "*"]]  # one text per argument, `*` = anything in it, a last "**" = any more
//! deploy_roots = ["/srv"]                 # deployments go below these
//! [approvers]                             # who must have signed what runs here
//! count = 2
//! allowed_signers = """
//! alice ssh-ed25519 AAAA…
//! bob ssh-ed25519 AAAA…
//! """
//! ```
//! An absent `argv` allows every program while `shell` is `"any"` and none otherwise, because `sh -c` is a program too.
//! With listed texts or patterns a command may not bring `env`, `cwd` or `stdin`: they could change what a text does.

mod approvers;
mod check;
mod deploys;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_common::glob::matches;
use signet_common::ids::AgentId;
use signet_common::messages::Command;
use signet_common::statement::{Agreeable, Statement};

pub use self::approvers::Approvers;
pub use self::check::{Answer, DeployQuestion, Question};
pub use self::deploys::{DeployRoots, follow};
use crate::limits::CONFIG_BYTES_MAX;

/// Where a policy is looked for, before the data directory.
pub const SYSTEM_FILE: &str = "/etc/signet/policy.toml";
/// Never a deploy root, nor anything below them; nor `/`, nor anything in `.ssh`.
const NEVER_ROOTS: [&str; 7] = ["/etc", "/usr", "/boot", "/proc", "/sys", "/dev", "/run"];

/// A policy that can't be used; the agent doesn't start with it.
#[derive(Debug, thiserror::Error)]
#[error("policy {file}: {why}")]
pub struct BadPolicy {
    file: String,
    why: String,
}

/// The rule that forbids a command, for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

/// Which shell texts may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shell {
    /// None.
    Off,
    /// Every one.
    Any,
    /// These, byte for byte.
    Exactly(Vec<String>),
}

/// What may run on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    users: Option<Vec<String>>,
    shell: Shell,
    argv: Option<Vec<Vec<String>>>,
    deploy_roots: DeployRoots,
    approvers: Option<Approvers>,
    narrowed: bool,
    /// The file that narrowed it.
    file: Option<PathBuf>,
}

/// Where and when a command is to run.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// This agent.
    pub me: &'a AgentId,
    /// Its own account, as which a command without `user` runs.
    pub user: &'a str,
    /// The agent's time, whole seconds since 1970.
    pub now: i64,
    /// When the journal's log began, likewise.
    pub log_began: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    users: Option<Vec<String>>,
    shell: Option<ShellText>,
    argv: Option<Vec<Vec<String>>>,
    deploy_roots: Option<Vec<PathBuf>>,
    approvers: Option<approvers::Written>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ShellText {
    Word(String),
    Exactly(Vec<String>),
}

impl Default for Policy {
    /// Without a file: any user, any command, the usual deploy roots.
    fn default() -> Self {
        let roots = ["/srv", "/opt", "/var/www", "/home"];
        Self {
            users: None,
            shell: Shell::Any,
            argv: None,
            deploy_roots: DeployRoots::Below(roots.map(PathBuf::from).to_vec()),
            approvers: None,
            narrowed: false,
            file: None,
        }
    }
}

impl Policy {
    /// For `signet up`: the user who started it, any command, any deploy root of this user's own.
    #[must_use]
    pub fn for_user(name: &str) -> Self {
        Self { users: Some(vec![name.to_owned()]), deploy_roots: DeployRoots::Own, ..Self::default() }
    }

    /// Narrows this policy by a file; keys that are absent there stay as they are.
    ///
    /// # Errors
    /// [`BadPolicy`] when the file can't be read, has an unknown key or a bad value.
    pub fn narrowed_by(self, file: &Path) -> Result<Self, BadPolicy> {
        let bad = |why: String| BadPolicy { file: file.display().to_string(), why };
        let size = fs::metadata(file).map_err(|e| bad(e.to_string()))?.len();
        if size > CONFIG_BYTES_MAX {
            return Err(bad(format!("larger than {CONFIG_BYTES_MAX} bytes")));
        }
        let text = fs::read_to_string(file).map_err(|e| bad(e.to_string()))?;
        Ok(Self { file: Some(file.to_owned()), ..self.narrowed_by_text(&text).map_err(bad)? })
    }

    /// The policy of an agent: `explicit`, else the first of `/etc/signet/policy.toml` and the data directory's, else
    /// `self`.
    ///
    /// # Errors
    /// [`BadPolicy`], also when an explicit file is missing.
    pub fn find(self, explicit: Option<&Path>, data_dir: &Path) -> Result<Self, BadPolicy> {
        if let Some(file) = explicit {
            return self.narrowed_by(file);
        }
        for file in [PathBuf::from(SYSTEM_FILE), data_dir.join("policy.toml")] {
            match fs::symlink_metadata(&file) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                // Anything else is a policy that is there: if it can't be read, nothing may start.
                _ => return self.narrowed_by(&file),
            }
        }
        Ok(self)
    }

    fn narrowed_by_text(mut self, text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        self.users = file.users.or(self.users);
        if let Some(shell) = file.shell {
            self.shell = match shell {
                ShellText::Word(word) if word == "off" => Shell::Off,
                ShellText::Word(word) if word == "any" => Shell::Any,
                ShellText::Word(word) => {
                    return Err(format!(
                        "shell: {word:?} is neither \"off\" nor \"any\" nor a list of texts"
                    ));
                }
                ShellText::Exactly(texts) => Shell::Exactly(texts),
            };
        }
        if let Some(patterns) = file.argv {
            if patterns.iter().any(Vec::is_empty) {
                return Err("argv: a pattern needs at least the program".into());
            }
            self.argv = Some(patterns);
        }
        if let Some(roots) = file.deploy_roots {
            roots.iter().try_for_each(|root| deploy_root(root))?;
            self.deploy_roots = DeployRoots::Below(roots);
        }
        if let Some(approvers) = file.approvers {
            self.approvers = Some(Approvers::read(&approvers)?);
        }
        self.narrowed = true;
        Ok(self)
    }

    /// Whether a file narrows it.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        self.narrowed
    }

    /// Below what deployments may go.
    #[must_use]
    pub fn deploy_roots(&self) -> &DeployRoots {
        &self.deploy_roots
    }

    /// Who must have signed what runs here, if anybody.
    #[must_use]
    pub fn approvers(&self) -> Option<&Approvers> {
        self.approvers.as_ref()
    }

    /// Whether a command may run here and now.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn allows(&self, command: &Command, here: &Here<'_>) -> Result<(), Denied> {
        self.lists(command, here.user)?;
        approvers::judge(self.approvers.as_ref(), command, here)
    }

    /// Whether what people agreed to was asked for after the host's own `clock` (seconds since 1970): where approvals count,
    /// it has to come again. Else a statement could be used and still be younger than a log that begins after that.
    #[must_use]
    pub fn is_early<M: Agreeable>(&self, message: &M, clock: i64) -> bool {
        let statement = || Statement::parse(&message.approval()?.statement).ok();
        self.approvers.is_some() && statement().is_some_and(|statement| statement.requested_at > clock)
    }

    /// Whether such a command may run here, if those who must agree to it do.
    fn lists(&self, command: &Command, own_user: &str) -> Result<(), Denied> {
        let user = command.user.as_deref().unwrap_or(own_user);
        if self.users.as_ref().is_some_and(|users| !users.iter().any(|u| u == user)) {
            return deny(format!("the user {user:?} is not among this host's users"));
        }
        let exact = match (&command.command, &command.argv) {
            (Some(text), None) => match &self.shell {
                Shell::Any => false,
                Shell::Off => return deny("this host runs no shell commands"),
                Shell::Exactly(texts) if texts.contains(text) => true,
                Shell::Exactly(_) => return deny("this shell command is not on this host's list"),
            },
            (None, Some(argv)) => match &self.argv {
                None if self.shell == Shell::Any => false,
                Some(patterns) if patterns.iter().any(|p| matches_all(p, argv)) => true,
                _ => return deny("these arguments match none of this host's patterns"),
            },
            _ => return deny("neither a shell command nor arguments"),
        };
        if exact && (!command.env.is_empty() || command.cwd.is_some() || command.stdin.is_some()) {
            return deny("env, cwd and stdin are not allowed with this host's listed commands");
        }
        Ok(())
    }
}

fn deny(why: impl Into<String>) -> Result<(), Denied> {
    Err(Denied(why.into()))
}

fn deploy_root(root: &Path) -> Result<(), String> {
    let plain = root.components().all(|c| {
        matches!(c, std::path::Component::RootDir | std::path::Component::Normal(_))
            && c.as_os_str() != ".ssh"
    });
    if root.is_absolute() && plain && !deploys::is_never(root) {
        Ok(())
    } else {
        Err(format!("deploy_roots: {} can't be a deploy root", root.display()))
    }
}

/// One pattern per argument; a last `**` stands for any further ones.
fn matches_all(patterns: &[String], argv: &[String]) -> bool {
    match patterns.split_last() {
        Some((last, head)) if last == "**" => {
            argv.len() >= head.len() && head.iter().zip(argv).all(|(p, a)| matches(p, a))
        }
        _ => patterns.len() == argv.len() && patterns.iter().zip(argv).all(|(p, a)| matches(p, a)),
    }
}

#[cfg(test)]
mod approvers_tests;
#[cfg(test)]
mod tests;
