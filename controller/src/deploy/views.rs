//! What answers say of jobs.

use serde::Serialize;
use signet_common::time::Micros;
use utoipa::ToSchema;

use super::model::{self, Job, JobStatus, Options, RunMode, Target, TargetStatus};
use crate::approvals::ApprovalView;

/// A job's name and where it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Brief {
    /// `job_<number>`.
    job_id: String,
    /// Where it stands.
    status: JobStatus,
}

pub(super) fn brief(id: i64, status: JobStatus) -> Brief {
    Brief { job_id: model::shown(id), status }
}

/// A job in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ItemView {
    /// `job_<number>`.
    job_id: String,
    /// Where it stands.
    status: JobStatus,
    /// Where it comes from.
    git_repo: String,
    /// Null: the remote's default branch.
    git_branch: Option<String>,
    /// UTC.
    requested_at: String,
    /// Absent until it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    /// Hosts.
    targets_count: i64,
}

impl From<Job> for ItemView {
    fn from(job: Job) -> Self {
        Self {
            job_id: model::shown(job.id),
            status: job.status,
            git_repo: job.plan.git_repo,
            git_branch: job.plan.git_branch,
            requested_at: job.requested_at.rfc3339(),
            finished_at: job.finished_at.map(Micros::rfc3339),
            targets_count: job.targets_count,
        }
    }
}

/// A page of jobs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ListView {
    /// Newest first. One that can't be read is left out, and has its place on its page.
    pub(super) items: Vec<ItemView>,
    /// On all pages, with those that can't be read.
    pub(super) total: i64,
    /// From 1.
    pub(super) page: usize,
    /// Jobs on a full page.
    pub(super) page_size: usize,
}

/// A host of a job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TargetView {
    /// Address or name.
    host: String,
    /// Where it stands.
    status: TargetStatus,
    /// Whether the path stood elsewhere before; null until it is final.
    changed: Option<bool>,
    /// Null until it is final.
    elapsed_ms: Option<i64>,
    /// Over SSH: where the host listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Over SSH: who logs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// What carries the job there.
    engine: model::Engine,
    /// What the path stands on, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// Why it is no success.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<Target> for TargetView {
    fn from(target: Target) -> Self {
        let standing = target.standing;
        Self {
            host: target.host,
            status: standing.status,
            changed: standing.changed,
            elapsed_ms: standing.elapsed_ms,
            port: target.port,
            username: target.username,
            engine: target.engine,
            commit: standing.commit,
            reason: standing.reason,
        }
    }
}

/// A job with its hosts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct DetailView {
    /// `job_<number>`.
    job_id: String,
    /// Where it stands.
    status: JobStatus,
    /// Where it comes from.
    git_repo: String,
    /// Null: the remote's default branch.
    git_branch: Option<String>,
    /// Where it goes.
    dest_path: String,
    /// How many hosts at a time.
    run_mode: RunMode,
    /// UTC.
    requested_at: String,
    /// Null until somebody took it.
    started_at: Option<String>,
    /// Null until it is over.
    finished_at: Option<String>,
    /// In the order of the request.
    targets: Vec<TargetView>,
    /// Who asked for it.
    requested_by: String,
    /// The one commit that every host with an agent gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// Who must agree to it, when somebody must.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalView>,
    /// The job that this one repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<String>,
    /// Somebody asked to cancel it.
    cancelling: bool,
    /// Why it did not succeed as a whole, where that is no host's matter.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// Everything beyond the document.
    #[serde(flatten)]
    options: Options,
}

impl DetailView {
    pub(super) fn of(job: Job, targets: Vec<Target>, approval: Option<ApprovalView>) -> Self {
        Self {
            job_id: model::shown(job.id),
            status: job.status,
            git_repo: job.plan.git_repo,
            git_branch: job.plan.git_branch,
            dest_path: job.plan.dest_path,
            run_mode: job.plan.run_mode,
            requested_at: job.requested_at.rfc3339(),
            started_at: job.started_at.map(Micros::rfc3339),
            finished_at: job.finished_at.map(Micros::rfc3339),
            targets: targets.into_iter().map(Into::into).collect(),
            requested_by: job.account,
            commit: job.commit,
            approval,
            retry_of: job.retry_of.map(model::shown),
            cancelling: job.cancel_at.is_some() && !job.status.is_final(),
            reason: job.reason,
            options: job.plan.options,
        }
    }
}
