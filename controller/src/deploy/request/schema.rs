//! What the description of the API says of requests. They are read field by field, to name all that is wrong.

use serde_json::Value;
use utoipa::ToSchema;

use crate::deploy::model::{self, RunMode};
use crate::repositories::CredentialRequest;

/// What a deployment is asked for with.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body")]
pub(in crate::deploy) struct JobRequest {
    /// For SSH or HTTPS, without a credential in it.
    git_repo: String,
    /// Branch or tag; the remote's default branch unless given.
    git_branch: Option<String>,
    /// Absolute.
    dest_path: String,
    /// At least one.
    targets: Vec<TargetRequest>,
    /// `parallel` unless given.
    run_mode: Option<RunMode>,
    /// Seconds until what is not done is ended; 3,600 unless given, at most 86,400.
    timeout: Option<u32>,
    /// `pin` unless the controller's settings say otherwise.
    host_key_policy: Option<model::HostKeyPolicy>,
    /// Throws away changes at the path.
    force: Option<bool>,
    /// `in_place` (unless given) or `releases`; only hosts with an agent make releases.
    strategy: Option<String>,
    /// Releases that stay; 5 unless given.
    keep: Option<u32>,
    /// Paths that live outside the releases and are linked into each.
    shared: Option<Vec<String>>,
    /// Shell texts run in a new release before it is current.
    build: Option<Vec<String>>,
    /// Shell texts run in a new release once it is current.
    activate: Option<Vec<String>>,
    /// `{"probe": {"command": …} or {"http": {"url": …}}, "timeout": …, "attempts": …}`
    #[schema(value_type = Option<Object>)]
    health: Option<Value>,
    /// Hosts at a time: a number, or a share such as `"20%"`.
    #[schema(value_type = Option<String>)]
    batch: Option<Value>,
    /// Failures above which no further batch goes; the rest is `SKIPPED`.
    max_failures: Option<u32>,
    /// Hosts that go first, as a batch of their own: a number, or a list of names among the targets. Unless each of them
    /// succeeds, the rest is `SKIPPED`.
    canary: Option<model::Canary>,
    /// Seconds between batches; none unless given.
    pause: Option<u32>,
    /// In what order hosts go; `given` unless given.
    order: Option<model::Turn>,
    /// Account that deploys on hosts with an agent; the agent's own unless given.
    user: Option<String>,
    /// What lets hosts with an agent read the repository, for this job and its retries alone. Without it, what is known of
    /// the repository counts.
    credential: Option<CredentialRequest>,
    /// Lines of an OpenSSH `allowed_signers` file: one of them must have signed the commit, or the tag that is deployed.
    /// Only where nothing is known of the repository that says so.
    allowed_signers: Option<String>,
    /// Checks out submodules as well; only hosts with an agent.
    submodules: Option<bool>,
    /// Lets filters run, such as Git LFS; only hosts with an agent.
    filters: Option<bool>,
}

/// A host of a deployment: over SSH with `username` and `auth`, or an enrolled host or group by its name alone.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes a part of the body")]
pub(in crate::deploy) struct TargetRequest {
    /// Address or name.
    host: Option<String>,
    /// All enrolled hosts of a group, as it is now.
    group: Option<String>,
    /// 22 unless given.
    port: Option<u16>,
    /// Who logs in.
    username: Option<String>,
    /// With what.
    auth: Option<AuthRequest>,
}

/// How to log in; never shown again.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes a part of the body")]
pub(in crate::deploy) struct AuthRequest {
    /// `private_key` or `password`.
    r#type: String,
    /// In OpenSSH's form, with `private_key`.
    private_key: Option<String>,
    /// What opens the key.
    passphrase: Option<String>,
    /// With `password`.
    password: Option<String>,
}

/// To what a job's hosts go back.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body")]
pub(in crate::deploy) struct RollbackRequest {
    /// The whole id of a commit that a finished job deployed there.
    commit: String,
}
