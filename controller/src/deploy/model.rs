//! Jobs and their targets, and how they may change: pure.

use serde::{Deserialize, Serialize};
use signet_common::deploy::{CommitId, CredentialKind, Releases};
use signet_common::time::Micros;
use utoipa::ToSchema;

pub use crate::settings::HostKeyPolicy;

/// An enum that is written as a word, on the wire and in the database.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            $($(#[$of])* #[serde(rename = $word)] $variant),*
        }

        impl $name {
            /// As on the wire and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// From the wire or the database.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// Where a job stands.
    JobStatus {
        /// Nobody took it yet.
        Pending = "PENDING",
        /// It is under way.
        Running = "RUNNING",
        /// Every target is a success.
        Success = "SUCCESS",
        /// It is over, and some target is no success.
        Failed = "FAILED",
        /// It was cancelled before all targets were final.
        Cancelled = "CANCELLED",
    }
}

words! {
    /// Where one target stands.
    TargetStatus {
        /// Its turn has not come.
        Pending = "PENDING",
        /// It is being deployed.
        Running = "RUNNING",
        /// The path stands on the wanted commit.
        Success = "SUCCESS",
        /// It failed; the reason says why.
        Failed = "FAILED",
        /// The job was cancelled before it ended.
        Cancelled = "CANCELLED",
        /// There was no way to it.
        Unreachable = "UNREACHABLE",
        /// It was left out.
        Skipped = "SKIPPED",
    }
}

words! {
    /// How many hosts at a time.
    RunMode {
        /// As many as there are, up to a bound.
        Parallel = "parallel",
        /// One after the other; one that fails does not stop the rest.
        Serial = "serial",
    }
}

words! {
    /// What carries a job to a target.
    Engine {
        /// `ansible-playbook`, over SSH.
        Ssh = "ssh",
        /// The host's own agent.
        Agent = "agent",
    }
}

impl JobStatus {
    /// Whether it is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Cancelled)
    }

    /// Where a job stands whose targets stand there.
    #[must_use]
    pub fn of(targets: &[TargetStatus], cancelled: bool) -> Self {
        if targets.iter().all(|t| t.is_final()) {
            if cancelled && targets.contains(&TargetStatus::Cancelled) {
                return Self::Cancelled;
            }
            let good = targets.iter().all(|t| *t == TargetStatus::Success);
            return if good { Self::Success } else { Self::Failed };
        }
        if targets.iter().all(|t| *t == TargetStatus::Pending) { Self::Pending } else { Self::Running }
    }
}

impl TargetStatus {
    /// Whether it is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// What happens to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Its turn has come.
    Started,
    /// It is over.
    Ended(End),
}

/// How a target ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// A final status.
    pub status: TargetStatus,
    /// Whether the path stood elsewhere before; only of a success.
    pub changed: bool,
    /// What the path stands on now, if that is known.
    pub commit: Option<String>,
    /// Why it is no success.
    pub reason: String,
    /// How long it took, if what carried it there says so.
    pub elapsed_ms: Option<i64>,
    /// Whether the controller concluded it, and the host's own word still counts.
    pub inferred: bool,
}

impl End {
    /// It is no success, for this reason.
    #[must_use]
    pub fn bad(status: TargetStatus, reason: impl Into<String>) -> Self {
        Self {
            status,
            changed: false,
            commit: None,
            reason: reason.into(),
            elapsed_ms: None,
            inferred: false,
        }
    }
}

/// One host of a job, as far as it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub status: TargetStatus,
    /// Null until it is final.
    pub changed: Option<bool>,
    /// When its turn came.
    pub started_at: Option<Micros>,
    /// Null until it is final.
    pub elapsed_ms: Option<i64>,
    /// Why it is no success; empty when there is nothing to say.
    pub reason: String,
    /// What the path stands on.
    pub commit: Option<String>,
    /// Whether its end is the controller's conclusion, and the host's own word still counts.
    pub inferred: bool,
}

impl Default for Standing {
    /// A target whose turn has not come.
    fn default() -> Self {
        Self {
            status: TargetStatus::Pending,
            changed: None,
            started_at: None,
            elapsed_ms: None,
            reason: String::new(),
            commit: None,
            inferred: false,
        }
    }
}

impl Standing {
    /// What it is after this; `None` when it changes nothing: a final status stays, unless it was only inferred and this is
    /// the host's own word.
    #[must_use]
    pub fn apply(&self, happening: &Happening, now: Micros) -> Option<Self> {
        match (self.status, happening) {
            (TargetStatus::Pending, Happening::Started) => {
                Some(Self { status: TargetStatus::Running, started_at: Some(now), ..self.clone() })
            }
            (status, Happening::Ended(end)) if !status.is_final() || (self.inferred && !end.inferred) => {
                let since = self.started_at.map_or(0, |at| (now.0 - at.0).max(0) / 1_000);
                Some(Self {
                    status: end.status,
                    changed: Some(end.changed),
                    started_at: self.started_at,
                    elapsed_ms: Some(end.elapsed_ms.unwrap_or(since)),
                    reason: end.reason.clone(),
                    commit: end.commit.clone(),
                    inferred: end.inferred,
                })
            }
            _ => None,
        }
    }
}

words! {
    /// In what order hosts go.
    Turn {
        /// As they were asked for, groups by hostname.
        Given = "given",
        /// By name.
        Name = "name",
        /// The other way round than they were asked for.
        Reverse = "reverse",
        /// Another order each time.
        Random = "random",
    }
}

/// Hosts that go first, as a batch of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Canary {
    /// The first so many.
    Hosts(u32),
    /// These of the targets.
    Named(Vec<String>),
}

/// How a job goes from host to host, as it is stored and shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RollingOptions {
    /// Hosts at a time: `5` or `20%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Failures above which no further batch goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<u32>,
    /// Hosts that go first; unless each succeeds, nothing else goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Seconds between batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<u32>,
    /// In what order hosts go; absent: as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Turn>,
}

impl RollingOptions {
    /// The fields that were given.
    #[must_use]
    pub fn given(&self) -> Vec<&'static str> {
        let all = [
            ("batch", self.batch.is_some()),
            ("max_failures", self.max_failures.is_some()),
            ("canary", self.canary.is_some()),
            ("pause", self.pause.is_some()),
            ("order", self.order.is_some()),
        ];
        all.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
    }
}

/// What a job was asked for beyond the document, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Options {
    /// Seconds from the start until what is not final is ended.
    pub timeout: u32,
    /// Whether hosts' keys must be known.
    pub host_key_policy: HostKeyPolicy,
    /// Whether changes at the path are thrown away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// How releases are made; absent: the path itself is the working tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub releases: Option<Releases>,
    /// How it goes from host to host.
    #[serde(flatten)]
    pub rolling: RollingOptions,
    /// The account on hosts with an agent; absent = the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// It goes back to what was deployed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Whether submodules are checked out as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
    /// Whether the filters run that the host's git knows, such as Git LFS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub filters: bool,
    /// Lines of an OpenSSH `allowed_signers` file, where nothing is known of the repository that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_signers: Option<String>,
    /// The kind of the credential that the job brought: `deploy_key` or `https_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub credential: Option<CredentialKind>,
}

/// Back to what was deployed before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// To this commit, on every host.
    #[schema(value_type = String)]
    pub commit: CommitId,
    /// The job whose hosts and options these are.
    pub job_id: String,
}

/// What a job is to do; the same for a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where it comes from.
    pub git_repo: String,
    /// Branch or tag; none = the remote's default branch.
    pub git_branch: Option<String>,
    /// Where it goes, without a final slash or empty parts.
    pub dest_path: String,
    /// How many hosts at a time.
    pub run_mode: RunMode,
    /// Everything else.
    pub options: Options,
}

impl Plan {
    /// Branch, tag or commit that is wanted; none = the remote's default branch.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match &self.options.rollback {
            Some(rollback) => Some(rollback.commit.as_str()),
            None => self.git_branch.as_deref(),
        }
    }
}

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// From 1; `job_<id>` on the wire.
    pub id: i64,
    /// Who asked for it.
    pub account: String,
    /// Where it stands.
    pub status: JobStatus,
    /// What it is to do.
    pub plan: Plan,
    /// Why it did not succeed as a whole, where that is no target's matter.
    pub reason: String,
    /// How many targets it has.
    pub targets_count: i64,
    /// The job that this one repeats.
    pub retry_of: Option<i64>,
    /// When it was asked for.
    pub requested_at: Micros,
    /// When somebody took it.
    pub started_at: Option<Micros>,
    /// When it was over.
    pub finished_at: Option<Micros>,
    /// When somebody asked to cancel it.
    pub cancel_at: Option<Micros>,
    /// The one commit that every host with an agent gets.
    pub commit: Option<String>,
    /// It waits for people to agree to it, and is nobody's meanwhile.
    pub awaits: bool,
    /// The newest line of its log.
    pub last_line: i64,
}

/// A target as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its place in the request, from 0.
    pub ordinal: i64,
    /// Address or name.
    pub host: String,
    /// Over SSH: where the host listens.
    pub port: Option<u16>,
    /// Over SSH: who logs in.
    pub username: Option<String>,
    /// What carries the job there.
    pub engine: Engine,
    /// Where it stands.
    pub standing: Standing,
}

/// `job_<id>`.
#[must_use]
pub fn shown(id: i64) -> String {
    format!("job_{id}")
}

/// The number in `job_<id>`.
#[must_use]
pub fn parse_id(text: &str) -> Option<i64> {
    let digits = text.strip_prefix("job_").filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|id| *id > 0 && shown(*id) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [TargetStatus; 7] = [
        TargetStatus::Pending,
        TargetStatus::Running,
        TargetStatus::Success,
        TargetStatus::Failed,
        TargetStatus::Cancelled,
        TargetStatus::Unreachable,
        TargetStatus::Skipped,
    ];

    #[test]
    fn a_target_only_moves_forward() {
        let now = Micros::from_seconds(10);
        let end = Happening::Ended(End::bad(TargetStatus::Failed, "x"));
        for status in ALL {
            let standing = Standing { status, ..Standing::default() };
            assert_eq!(standing.apply(&end, now).is_none(), status.is_final(), "{status:?}");
            let started = standing.apply(&Happening::Started, now);
            assert_eq!(started.is_some(), status == TargetStatus::Pending, "{status:?}");
        }
        let running = Standing::default().apply(&Happening::Started, now).unwrap();
        let done = running.apply(&end, Micros(now.0 + 1_500_000)).unwrap();
        assert_eq!((done.elapsed_ms, done.changed, done.reason.as_str()), (Some(1_500), Some(false), "x"));
    }

    #[test]
    fn only_a_hosts_own_word_replaces_an_inferred_end() {
        let now = Micros::from_seconds(10);
        let end = |inferred| {
            Happening::Ended(End {
                inferred,
                ..End::bad(TargetStatus::Failed, if inferred { "lost" } else { "x" })
            })
        };
        let lost = Standing::default().apply(&end(true), now).unwrap();
        assert_eq!((lost.apply(&end(true), now), lost.apply(&Happening::Started, now)), (None, None));
        let told = lost.apply(&end(false), now).unwrap();
        assert_eq!((told.reason.as_str(), told.apply(&end(false), now)), ("x", None));
    }

    #[test]
    fn a_job_stands_where_its_targets_stand() {
        use TargetStatus as T;
        let of = |targets: &[T]| JobStatus::of(targets, false);
        assert_eq!(of(&[T::Pending, T::Pending]), JobStatus::Pending);
        assert_eq!(of(&[T::Pending, T::Success]), JobStatus::Running);
        assert_eq!(of(&[T::Success, T::Success]), JobStatus::Success);
        for bad in [T::Failed, T::Unreachable, T::Skipped, T::Cancelled] {
            assert_eq!(of(&[T::Success, bad]), JobStatus::Failed);
        }
        assert_eq!(JobStatus::of(&[T::Success, T::Cancelled], true), JobStatus::Cancelled);
        assert_eq!(
            JobStatus::of(&[T::Success, T::Failed], true),
            JobStatus::Failed,
            "the cancel came too late"
        );
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        assert_eq!(parse_id("job_123"), Some(123));
        for bad in ["123", "job_", "job_0", "job_-1", "job_01", "job_+1", "job_x", "job_99999999999999999999"]
        {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }
}
