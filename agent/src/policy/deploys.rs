//! What may be deployed here, and to where.

use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use signet_common::deploy::{Deploy, Phase, Strategy};

use super::{Denied, Here, NEVER_ROOTS, Policy, SYSTEM_FILE, Shell, approvers, deny};
use crate::limits::DEPLOY_NAMES_SHOWN;

/// Below what deployments may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeployRoots {
    /// Below these directories.
    Below(Vec<PathBuf>),
    /// Wherever the agent's own user owns the directory or may create it.
    Own,
}

impl DeployRoots {
    /// Whether a path without symbolic links lies where deployments may go. `roots` are as written, too.
    #[must_use]
    pub fn hold(&self, path: &Path) -> bool {
        !is_never(path)
            && match self {
                Self::Own => true,
                Self::Below(roots) => roots.iter().any(|root| path.starts_with(root)),
            }
    }

    /// Where a path really leads, when that is where deployments may go. Its end may be missing.
    ///
    /// # Errors
    /// A link that leads nowhere, a directory that can't be looked into, or a way out of the roots.
    pub fn lead(&self, path: &Path) -> Result<PathBuf, Denied> {
        let leads =
            follow(path).map_err(|error| Denied(format!("{} can't be followed: {error}", path.display())))?;
        if self.resolved().hold(&leads) {
            return Ok(leads);
        }
        let to = match leads == path {
            true => "which".to_owned(),
            false => format!("which leads to {} and so", leads.display()),
        };
        Err(Denied(format!("{}, {to} {}", path.display(), self.hold_not())))
    }

    /// What is said of a path that they don't hold: which they are, and where that is set.
    fn hold_not(&self) -> String {
        let roots = match self {
            Self::Own => return format!("is below one of {}, or in .ssh", NEVER_ROOTS.join(", ")),
            Self::Below(roots) => roots,
        };
        let mut shown: Vec<String> =
            roots.iter().take(DEPLOY_NAMES_SHOWN).map(|root| root.display().to_string()).collect();
        if shown.is_empty() {
            shown.push("there are none".into());
        }
        if roots.len() > shown.len() {
            shown.push("…".into());
        }
        format!(
            "is below none of this host's deploy roots: {} (`deploy_roots` in {SYSTEM_FILE})",
            shown.join(", ")
        )
    }

    /// The same roots without symbolic links, as this process sees them; those that can't be followed are left out.
    fn resolved(&self) -> Self {
        match self {
            Self::Own => Self::Own,
            Self::Below(roots) => Self::Below(roots.iter().filter_map(|root| follow(root).ok()).collect()),
        }
    }
}

/// Follows every symbolic link of a path, of which the end may be missing.
///
/// # Errors
/// A link that leads nowhere (it could lead anywhere by the time it is used), or a directory that can't be looked into.
pub fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut there = path;
    let mut missing = Vec::new();
    let mut followed = loop {
        match there.canonicalize() {
            Ok(followed) => break followed,
            Err(error) if error.kind() == io::ErrorKind::NotFound && there.symlink_metadata().is_err() => {}
            Err(error) => return Err(error),
        }
        missing.extend(there.file_name());
        there = there.parent().ok_or(io::ErrorKind::NotFound)?;
    };
    followed.extend(missing.into_iter().rev());
    Ok(followed)
}

/// Never a place for deployments, whatever a policy says.
pub(super) fn is_never(path: &Path) -> bool {
    path == Path::new("/")
        || NEVER_ROOTS.iter().any(|never| path.starts_with(never))
        || path.components().any(|part| part == Component::Normal(".ssh".as_ref()))
}

impl Policy {
    /// Whether not just any shell command runs here.
    #[must_use]
    pub fn narrows_shell(&self) -> bool {
        self.shell != Shell::Any
    }

    /// Whether a deployment may start here and now. Where its path really leads is looked at when it has started.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn allows_deploy(&self, deploy: &Deploy, here: &Here<'_>) -> Result<(), Denied> {
        self.lists_deploy(deploy, here.user)?;
        match deploy.phase {
            // They change no file of the path, so nobody has to agree to them; and none of them uses an approval up.
            Phase::Resolve | Phase::Preflight if deploy.approval.is_some() => {
                deny("an approval is for a deployment, and this only prepares one")
            }
            Phase::Resolve | Phase::Preflight => Ok(()),
            Phase::Deploy => approvers::judge(self.approvers.as_ref(), deploy, here),
        }
    }

    /// Whether such a deployment may start here, if those who must agree to it do.
    pub(super) fn lists_deploy(&self, deploy: &Deploy, own_user: &str) -> Result<(), Denied> {
        let user = deploy.user.as_deref().unwrap_or(own_user);
        if self.users.as_ref().is_some_and(|users| !users.iter().any(|u| u == user)) {
            return deny(format!("the user {user:?} is not among this host's users"));
        }
        if !self.deploy_roots.hold(Path::new(deploy.path.as_str())) {
            return deny(format!("{} {}", deploy.path, self.deploy_roots.hold_not()));
        }
        if self.narrows_shell() && runs_shell(&deploy.strategy) {
            return deny("hooks and health commands are shell commands, and this host runs not just any");
        }
        if self.narrows_shell() && deploy.filters {
            return deny(
                "filters run the programs that a git configuration names, and this host runs not just any",
            );
        }
        Ok(())
    }
}

fn runs_shell(strategy: &Strategy) -> bool {
    match strategy {
        Strategy::InPlace => false,
        Strategy::Releases(releases) => releases.runs_shell(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use signet_common::ids::{AgentId, Jti};

    fn judged(policy: &Policy, change: Value) -> Result<(), Denied> {
        let me: AgentId = "a".repeat(40).parse().unwrap();
        let mut message = json!({
            "iss": "controller", "aud": [me], "iat": 1, "exp": 2, "jti": Jti::generate(), "task_id": "t",
            "phase": "deploy", "repository": "https://example.com/app", "commit": "b".repeat(40),
            "path": "/srv/app", "protocols": ["https"], "timeout": 60,
        });
        message.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let deploy: Deploy = serde_json::from_value(message).unwrap();
        policy.allows_deploy(&deploy, &Here { me: &me, user: "root", now: 1, log_began: 0 })
    }

    #[test]
    fn filters_are_programs() {
        let narrow = Policy { shell: Shell::Off, ..Policy::default() };
        assert!(judged(&narrow, json!({})).is_ok());
        assert!(judged(&Policy::default(), json!({ "filters": true })).is_ok());
        let why = judged(&narrow, json!({ "filters": true })).unwrap_err().to_string();
        assert!(why.contains("filters run"), "{why}");
    }

    #[test]
    fn a_refusal_names_the_roots_and_where_they_are_set() {
        let roots = ["/srv", "/opt", "/var/www", "/home"];
        let why = judged(&Policy::default(), json!({ "path": "/data/app" })).unwrap_err().to_string();
        let told = format!(
            "/data/app is below none of this host's deploy roots: {} (`deploy_roots` in {SYSTEM_FILE})",
            roots.join(", ")
        );
        assert_eq!(why, told);
        let security = include_str!("../../../docs/security.md");
        for root in roots {
            assert!(security.contains(&format!("`{root}`")), "{root}");
        }
        let none = Policy { deploy_roots: DeployRoots::Below(Vec::new()), ..Policy::default() };
        let why = judged(&none, json!({})).unwrap_err().to_string();
        assert!(why.contains("deploy roots: there are none ("), "{why}");
        let own = Policy { deploy_roots: DeployRoots::Own, ..Policy::default() };
        let why = judged(&own, json!({ "path": "/etc/app" })).unwrap_err().to_string();
        assert!(why.contains("/etc/app is below one of /etc, /usr"), "{why}");
    }

    #[test]
    fn what_only_prepares_uses_no_approval_up() {
        let approval = json!({ "statement": "e30=", "approvers": [], "signatures": [] });
        for phase in ["resolve", "preflight"] {
            assert!(judged(&Policy::default(), json!({ "phase": phase })).is_ok());
            let with = json!({ "phase": phase, "approval": approval });
            let why = judged(&Policy::default(), with).unwrap_err().to_string();
            assert!(why.contains("only prepares"), "{why}");
        }
    }
}
