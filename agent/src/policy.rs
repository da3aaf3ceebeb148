//! The host's own word on what may run here: `policy.toml`.
//!
//! ```toml
//! users = ["deploy"]                      # accounts to run as; absent = any
//! shell = "any"                           # "off", "any", or a list of exact texts
//! argv = [["systemctl", "restart", "*"]]  # one text per argument, `*` = anything in it, a last "**" = any more
//! deploy_roots = ["/srv"]                 # deployments go below these
//! [approvers]                             # who must have signed what runs here
//! count = 2
//! allowed_signers = "alice@example.com ssh-ed25519 AAAA…"
//! ```
//! An absent `argv` allows every program while `shell` is `"any"` and none otherwise, because `sh -c` is a program too.
//! With listed texts or patterns a command may not bring `env`, `cwd` or `stdin`: they could change what a text does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signet_common::glob::matches;
use signet_common::messages::Command;

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

/// Below what deployments may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeployRoots {
    /// Below these directories.
    Below(Vec<PathBuf>),
    /// Wherever the agent's own user owns the directory or may create it.
    Own,
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
}

/// Who must have signed what runs here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvers {
    /// How many of them.
    pub count: u32,
    /// Their keys, in the format of OpenSSH's `allowed_signers`.
    pub allowed_signers: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    users: Option<Vec<String>>,
    shell: Option<ShellText>,
    argv: Option<Vec<Vec<String>>>,
    deploy_roots: Option<Vec<PathBuf>>,
    approvers: Option<Approvers>,
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
        self.narrowed_by_text(&text).map_err(bad)
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
            if approvers.count == 0 || approvers.allowed_signers.trim().is_empty() {
                return Err("approvers: count must be at least 1, and allowed_signers not empty".into());
            }
            self.approvers = Some(approvers);
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

    /// Whether a command may run here. `own_user` is the agent's, as which a command without `user` runs.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn allows(&self, command: &Command, own_user: &str) -> Result<(), Denied> {
        if self.approvers.is_some() {
            return deny("this host needs approvals, and this version of the agent can't check them");
        }
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
    let never = root == Path::new("/") || NEVER_ROOTS.iter().any(|never| root.starts_with(never));
    if root.is_absolute() && plain && !never {
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
mod tests {
    use super::*;
    use serde_json::json;

    fn command(change: serde_json::Value) -> Command {
        let mut base = json!({
            "iss": "controller", "aud": ["a".repeat(40)], "iat": 1, "exp": 2, "timeout": 30, "task_id": "t",
            "jti": signet_common::Jti::generate(),
        });
        base.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(base).unwrap()
    }

    fn policy(text: &str) -> Policy {
        Policy::default().narrowed_by_text(text).unwrap()
    }

    #[test]
    fn the_table() {
        let shell = |text: &str| json!({ "command": text });
        let argv = |args: &[&str]| json!({ "argv": args });
        let with = |mut base: serde_json::Value, key: &str, value: serde_json::Value| {
            base[key] = value;
            base
        };
        let list = r#"shell = ["uptime", "df -h"]"#;
        let units = r#"shell = "off"
            argv = [["systemctl", "restart", "app-*"], ["journalctl", "**"]]"#;
        let cases = [
            ("", shell("rm -rf /"), true),
            ("", argv(&["rm"]), true),
            ("", with(shell("x"), "user", json!("anyone")), true),
            (r#"users = ["deploy"]"#, with(shell("x"), "user", json!("deploy")), true),
            (r#"users = ["deploy"]"#, with(shell("x"), "user", json!("root")), false),
            (r#"users = ["deploy"]"#, shell("x"), false),
            (r#"users = ["me"]"#, shell("x"), true),
            (r#"users = []"#, shell("x"), false),
            (r#"shell = "off""#, shell("x"), false),
            (r#"shell = "off""#, argv(&["sh", "-c", "x"]), false),
            (r#"shell = "any""#, argv(&["sh", "-c", "x"]), true),
            (list, shell("uptime"), true),
            (list, shell("uptime "), false),
            (list, argv(&["uptime"]), false),
            (list, with(shell("uptime"), "env", json!({"PATH": "/tmp"})), false),
            (list, with(shell("uptime"), "cwd", json!("/tmp")), false),
            (list, with(shell("uptime"), "stdin", json!("x")), false),
            (units, argv(&["systemctl", "restart", "app-1"]), true),
            (units, argv(&["systemctl", "restart", "sshd"]), false),
            (units, argv(&["systemctl", "restart"]), false),
            (units, argv(&["systemctl", "restart", "app-1", "sshd"]), false),
            (units, argv(&["journalctl"]), true),
            (units, argv(&["journalctl", "-u", "x"]), true),
            (units, with(argv(&["journalctl"]), "env", json!({"A": "b"})), false),
            (r#"argv = [["ls"]]"#, argv(&["rm"]), false),
            (r#"argv = [["ls"]]"#, shell("rm"), true),
            ("[approvers]\ncount = 1\nallowed_signers = \"a ssh-ed25519 A\"", shell("x"), false),
        ];
        for (text, change, expected) in cases {
            let allowed = policy(text).allows(&command(change.clone()), "me");
            assert_eq!(allowed.is_ok(), expected, "{text:?} {change} {allowed:?}");
        }
    }

    #[test]
    fn bad_files_are_refused() {
        for bad in [
            "user = []",
            r#"shell = "on""#,
            "shell = 1",
            "argv = [[]]",
            r#"deploy_roots = ["/"]"#,
            r#"deploy_roots = ["/etc"]"#,
            r#"deploy_roots = ["/etc/"]"#,
            r#"deploy_roots = ["/usr/local/app"]"#,
            r#"deploy_roots = ["/srv", "/proc/1/cwd"]"#,
            r#"deploy_roots = ["/home/me/.ssh/keys"]"#,
            r#"deploy_roots = ["/srv/../etc"]"#,
            r#"deploy_roots = ["srv"]"#,
            r#"deploy_roots = ["/home/me/.ssh"]"#,
            "[approvers]\ncount = 0\nallowed_signers = \"x\"",
            "[approvers]\ncount = 1",
            "=",
        ] {
            assert!(Policy::default().narrowed_by_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_narrows_and_absent_keys_stay() {
        assert!(!Policy::default().is_narrowed());
        let narrowed = Policy::for_user("me").narrowed_by_text(r#"shell = "off""#).unwrap();
        assert!(narrowed.is_narrowed());
        assert_eq!(narrowed.deploy_roots(), &DeployRoots::Own);
        assert!(narrowed.allows(&command(json!({"argv": ["x"], "user": "you"})), "me").is_err());
    }

    #[test]
    fn an_explicit_file_must_exist_and_the_data_directory_is_searched() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Policy::default().find(Some(&dir.path().join("none")), dir.path()).is_err());
        assert_eq!(Policy::default().find(None, dir.path()).unwrap(), Policy::default());
        fs::write(dir.path().join("policy.toml"), r#"shell = "off""#).unwrap();
        assert!(Policy::default().find(None, dir.path()).unwrap().is_narrowed());
        fs::write(dir.path().join("policy.toml"), "nonsense").unwrap();
        assert!(Policy::default().find(None, dir.path()).is_err());
    }
}
