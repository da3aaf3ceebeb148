//! `deploy`: bring one commit of a git repository to a directory of each host in `aud`.
//!
//! Every text that git or a shell will see is a type of its own, parsed here by controller and agent alike: none of them
//! can be taken for an option, name a transport helper, leave its directory or carry a control character.

mod texts;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Jti, TaskId};
use crate::limits::{
    COMMAND_TEXT_BYTES_MAX, DEPLOY_ATTEMPTS_MAX, DEPLOY_HOOKS_MAX, DEPLOY_KEEP_DEFAULT, DEPLOY_KEEP_MAX,
    DEPLOY_SHARED_MAX,
};
use crate::seal::Sealed;
use crate::statement::Approval;

pub use texts::{BadDeploy, CommitId, DeployPath, GitRef, GitUrl, Protocol, SharedPath};

/// What is asked of the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Only say to which commit the reference leads. Nothing on the host changes.
    Resolve,
    /// Fetch the commit into the repository that is there already, and say whether it is there now. No file changes.
    Preflight,
    /// Deploy the commit.
    Deploy,
}

/// How a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    /// A text for `/bin/sh -c`, run in the new release; exit code 0 is healthy.
    Command(String),
    /// An `http` or `https` address, asked with GET.
    Http {
        /// The address.
        url: String,
        /// The status that is healthy; redirects are not followed.
        #[serde(default = "status_default")]
        expect_status: u16,
    },
}

const fn status_default() -> u16 {
    200
}

/// How a new release shows that it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Seconds that one attempt may take.
    pub timeout: u32,
    /// How often it is asked before the release is given up, 1 to [`crate::limits::DEPLOY_ATTEMPTS_MAX`].
    pub attempts: u32,
    /// Seconds between two attempts.
    #[serde(default)]
    pub pause: u32,
}

/// Directories `releases/<time>-<commit>` beside one bare `repo.git`, and the symbolic link `current`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releases {
    /// How many releases stay, the current one included; 1 to [`crate::limits::DEPLOY_KEEP_MAX`].
    #[serde(default = "keep_default")]
    pub keep: u32,
    /// What lives in `shared/` and is linked into each release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedPath>,
    /// Shell texts run in the new release before the switch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<String>,
    /// Shell texts run in the new release after the switch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activate: Vec<String>,
    /// Asked after `activate`. When it fails, the release before is current again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

const fn keep_default() -> u32 {
    DEPLOY_KEEP_DEFAULT
}

impl Default for Releases {
    fn default() -> Self {
        Self { keep: DEPLOY_KEEP_DEFAULT, shared: vec![], build: vec![], activate: vec![], health: None }
    }
}

/// What becomes of the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The directory is the working tree.
    #[default]
    InPlace,
    /// It holds releases.
    Releases(Releases),
}

/// What the credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A private SSH key in OpenSSH's format, without a passphrase.
    DeployKey,
    /// A token or password for HTTPS.
    HttpsToken,
}

impl CredentialKind {
    /// Whether it is of use there and can't be overheard on the way.
    #[must_use]
    pub fn fits(self, repository: &GitUrl) -> bool {
        match (self, repository.protocol()) {
            (Self::DeployKey, protocol) => protocol == Protocol::Ssh,
            (Self::HttpsToken, Protocol::Https) => true,
            (Self::HttpsToken, Protocol::Http) => repository.is_loopback(),
            (Self::HttpsToken, _) => false,
        }
    }
}

/// What lets the host read the repository. A message with one has exactly one agent in `aud`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Which kind.
    pub kind: CredentialKind,
    /// The user that goes with a token; absent = `git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Lines of a `known_hosts` file for a deploy key: only these are believed. Absent = the user's own file, to which
    /// a host is added that it doesn't know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// The secret, sealed to the agent under the field name [`Credential::FIELD`].
    pub sealed: Sealed,
}

impl Credential {
    /// To what the secret is bound, beside the message's `jti` and the agent.
    pub const FIELD: &'static str = "credential";
}

/// `deploy`: bring one commit to a directory of each host in `aud`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// `controller`.
    pub iss: String,
    /// The hosts.
    pub aud: Vec<AgentId>,
    /// Issued, whole seconds since 1970.
    pub iat: i64,
    /// The last second in which it may start.
    pub exp: i64,
    /// The message's id: started at most once on each host.
    pub jti: Jti,
    /// The job it belongs to.
    pub task_id: TaskId,
    /// What is asked.
    pub phase: Phase,
    /// From where.
    pub repository: GitUrl,
    /// Branch or tag; absent = the remote's default branch. Says what to fetch, and with `allowed_signers` which tag
    /// may carry the signature; what is deployed is `commit` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitRef>,
    /// Exactly this commit is deployed. There in every phase but [`Phase::Resolve`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// To where.
    pub path: DeployPath,
    /// How.
    #[serde(default)]
    pub strategy: Strategy,
    /// Takes a release of `commit` that is still there, when one is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// Overwrites what was changed by hand, takes over a directory that holds something else, and deploys a commit again
    /// that is there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Checks out submodules as well, over the same protocols.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
    /// Lets the filters run that the user's git knows, such as Git LFS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filters: bool,
    /// Lines of an OpenSSH `allowed_signers` file: one of them must have signed the commit, or the tag that is the
    /// `reference` and leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_signers: Option<String>,
    /// Over what git may go.
    pub protocols: Vec<Protocol>,
    /// What lets the host read the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Account that deploys and owns the files; absent = the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Seconds from the start until it is ended, hooks and health checks included.
    pub timeout: u32,
    /// What people agreed to before it was sent; see [`crate::statement`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

impl Deploy {
    /// Whether it makes sense as a whole, beyond what its fields' types hold.
    ///
    /// # Errors
    /// [`BadDeploy`], the first that is wrong.
    pub fn check(&self) -> Result<(), BadDeploy> {
        let bad = |what, why| Err(BadDeploy { what, why });
        if self.commit.is_none() && self.phase != Phase::Resolve {
            return bad("the commit", "is missing");
        }
        if !self.protocols.contains(&self.repository.protocol()) {
            return bad("the repository", "is reached over a protocol that is not allowed");
        }
        if let Some(credential) = &self.credential {
            if self.aud.len() != 1 {
                return bad("the credential", "is for exactly one host");
            }
            if !credential.kind.fits(&self.repository) {
                return bad("the credential", "does not fit the repository's protocol");
            }
            let username = credential.username.as_deref().unwrap_or_default();
            if username.chars().any(char::is_control) {
                return bad("the credential's user", "has a control character in it");
            }
        }
        match &self.strategy {
            Strategy::InPlace => Ok(()),
            Strategy::Releases(releases) => releases.check(),
        }
    }
}

impl Releases {
    /// Whether a shell runs in it.
    #[must_use]
    pub fn runs_shell(&self) -> bool {
        let command = |health: &Health| matches!(health.probe, Probe::Command(_));
        !self.build.is_empty() || !self.activate.is_empty() || self.health.as_ref().is_some_and(command)
    }

    /// Whether its numbers and texts are within bounds.
    ///
    /// # Errors
    /// [`BadDeploy`], the first that is wrong.
    pub fn check(&self) -> Result<(), BadDeploy> {
        let bad = |what, why| Err(BadDeploy { what, why });
        if self.keep == 0 || self.keep > DEPLOY_KEEP_MAX {
            return bad("keep", "must be 1 to 100");
        }
        if self.shared.len() > DEPLOY_SHARED_MAX {
            return bad("shared", "names too many paths");
        }
        let inside = |a: &SharedPath, b: &SharedPath| {
            b.as_str().strip_prefix(a.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let twice = |(i, a)| self.shared.iter().enumerate().any(|(j, b)| i != j && inside(a, b));
        if self.shared.iter().enumerate().any(twice) {
            return bad("shared", "names a path inside another");
        }
        let hooks = || self.build.iter().chain(&self.activate);
        if hooks().count() > DEPLOY_HOOKS_MAX {
            return bad("build and activate", "are too many");
        }
        if hooks().any(|hook| hook.is_empty() || hook.len() > COMMAND_TEXT_BYTES_MAX || hook.contains('\0')) {
            return bad("a hook", "is empty, too long or has a zero byte in it");
        }
        let Some(health) = &self.health else { return Ok(()) };
        if health.attempts == 0 || health.attempts > DEPLOY_ATTEMPTS_MAX || health.timeout == 0 {
            return bad("health", "must be asked 1 to 1,000 times with a timeout");
        }
        match &health.probe {
            Probe::Command(text) if text.is_empty() || text.contains('\0') => {
                bad("health", "has an empty command or a zero byte in it")
            }
            Probe::Http { url, .. } if !url.starts_with("http://") && !url.starts_with("https://") => {
                bad("health", "has an address that is neither http nor https")
            }
            _ => Ok(()),
        }
    }
}

/// What a deployment did: part of its `result`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// On which commit the path stands now; for [`Phase::Resolve`] to which commit the reference leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// On which it stood before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<CommitId>,
    /// Whether anything of the path changed.
    #[serde(default)]
    pub changed: bool,
    /// The release that is current, by its directory's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The release that became current again because the new one did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<String>,
    /// For [`Phase::Preflight`]: whether the commit is on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// How one path stands that was deployed, as heartbeats tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which path.
    pub path: DeployPath,
    /// The commit that was deployed last.
    pub deployed: CommitId,
    /// The commit on which it stands; absent when there is nothing readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// Whether files were changed by hand.
    #[serde(default)]
    pub edited: bool,
}

#[cfg(test)]
mod tests;
