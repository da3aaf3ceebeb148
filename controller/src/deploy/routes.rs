//! HTTP in, HTTP out.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use signet_common::time::Micros;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::logs::{self, LinesView};
use super::model::{self, Job, JobStatus, Options, RunMode, Target, TargetStatus, parse_id};
use super::store::Filter;
use super::{deployments, host_keys, request};
use crate::app::App;
use crate::approvals::ApprovalView;
use crate::error::{Error, Result};
use crate::http::extract::{Author, Caller, JsonBytes, Path, Query};
use crate::limits::{JOB_WAIT_SECONDS_MAX, JOBS_LIMIT, JOBS_LIMIT_MAX};
use crate::repositories::CredentialRequest;

/// The slice's routes.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(post_job, list_jobs))
        .routes(routes!(get_job))
        .routes(routes!(get_logs))
        .routes(routes!(retry_job))
        .routes(routes!(rollback_job))
        .routes(routes!(cancel_job))
        .merge(host_keys::routes())
        .merge(deployments::routes())
}

/// A good answer in the document's envelope.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Good<T> {
    /// Always true.
    ok: bool,
    /// What was asked for.
    data: T,
}

pub(super) fn good<T: Serialize>(status: StatusCode, data: T) -> Response {
    (status, axum::Json(Good { ok: true, data })).into_response()
}

/// What a deployment is asked for with.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read field by field to name all that is wrong")]
struct JobRequest {
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
struct TargetRequest {
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
struct AuthRequest {
    /// `private_key` or `password`.
    r#type: String,
    /// In OpenSSH's form, with `private_key`.
    private_key: Option<String>,
    /// What opens the key.
    passphrase: Option<String>,
    /// With `password`.
    password: Option<String>,
}

/// A job's name and where it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Brief {
    /// `job_<number>`.
    job_id: String,
    /// Where it stands.
    status: JobStatus,
}

fn brief(id: i64, status: JobStatus) -> Brief {
    Brief { job_id: model::shown(id), status }
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WaitQuery {
    /// Waits so many seconds for the job's end, at most 3,600: then the answer is 200 with the final status.
    #[param(value_type = Option<u64>)]
    wait: Option<String>,
}

impl WaitQuery {
    fn limit(&self) -> Result<Option<Duration>> {
        let Some(text) = &self.wait else { return Ok(None) };
        let seconds = text.parse().ok().filter(|n: &u64| *n <= JOB_WAIT_SECONDS_MAX);
        let why = || Error::invalid("wait", format!("must be a whole number up to {JOB_WAIT_SECONDS_MAX}"));
        seconds.map(|n| Some(Duration::from_secs(n))).ok_or_else(why)
    }
}

/// Deploys a repository to hosts.
#[utoipa::path(post, path = "/api/v1/jobs", request_body = JobRequest, tag = "jobs", params(WaitQuery),
    responses((status = 202, body = Good<Brief>), (status = 200, body = Good<Brief>), (status = 422), (status = 413)))]
async fn post_job(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Query(query): Query<WaitQuery>,
    body: JsonBytes,
) -> Result<Response> {
    let limit = query.limit()?;
    let body: Value = body.parse()?;
    let request = request::check(&body, &app.jobs.request_rules())?;
    let id = app.jobs.ask(&by, &caller, request).await?;
    tracing::info!(job = id, "a deployment was asked for");
    accepted(&app, id, limit).await
}

/// 202, or 200 when the job is over within the time that the caller waits.
async fn accepted(app: &App, id: i64, limit: Option<Duration>) -> Result<Response> {
    let Some(limit) = limit else { return Ok(good(StatusCode::ACCEPTED, brief(id, JobStatus::Pending))) };
    let status = tokio::select! {
        status = app.jobs.wait(id, limit) => status?,
        () = app.stop.cancelled() => JobStatus::Pending,
    };
    let code = if status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(good(code, brief(id, status)))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// From 1.
    #[param(value_type = Option<u64>)]
    page: Option<String>,
    /// 20 unless given, 100 at most.
    #[param(value_type = Option<u64>)]
    page_size: Option<String>,
    /// Only jobs that stand there.
    #[param(value_type = Option<JobStatus>)]
    status: Option<String>,
    /// Only jobs asked for from this moment on; a time or a date.
    from: Option<String>,
    /// Only jobs asked for before this moment; a date includes its day.
    to: Option<String>,
}

const DAY_SECONDS: i64 = 86_400;

/// A moment, or the first one of a date; says which.
fn moment(text: &str) -> Option<(Micros, bool)> {
    if let Some(day) = Micros::parse_rfc3339(&format!("{text}T00:00:00Z")) {
        return Some((day, true));
    }
    // A plus sign that nobody escaped came as a blank.
    Micros::parse_rfc3339(&text.replace(' ', "+")).map(|at| (at, false))
}

/// Page and its size.
pub(super) fn page(
    page: Option<&str>,
    size: Option<&str>,
    wrong: &mut Vec<(String, String)>,
) -> (usize, usize) {
    let mut whole = |name: &str, text: Option<&str>, default: usize| match text.map(str::parse) {
        None => default,
        Some(Ok(n)) if n >= 1 => n,
        Some(_) => {
            wrong.push((name.to_owned(), "must be a whole number from 1".to_owned()));
            default
        }
    };
    (whole("page", page, 1), whole("page_size", size, JOBS_LIMIT).min(JOBS_LIMIT_MAX))
}

impl ListQuery {
    /// Page, its size, and what the list is narrowed to.
    fn parse(&self) -> Result<(usize, usize, Filter)> {
        let mut wrong = Vec::new();
        let (page, size) = page(self.page.as_deref(), self.page_size.as_deref(), &mut wrong);
        let status = self.status.as_ref().map(|text| JobStatus::parse(&text.to_ascii_uppercase()));
        if status == Some(None) {
            let why = "must be PENDING, RUNNING, SUCCESS, FAILED or CANCELLED";
            wrong.push(("status".into(), why.into()));
        }
        let mut time = |name: &str, text: &Option<String>| {
            let found = text.as_ref().map(|text| moment(text));
            if found == Some(None) {
                wrong.push((name.to_owned(), "must be a time (RFC 3339) or a date".into()));
            }
            found.flatten()
        };
        let (from, to) = (time("from", &self.from), time("to", &self.to));
        if !wrong.is_empty() {
            return Err(Error::InvalidFields(wrong));
        }
        let filter = Filter {
            status: status.flatten(),
            from: from.map_or(Micros(i64::MIN), |(at, _)| at),
            to: to.map_or(Micros(i64::MAX), |(at, day)| if day { at.plus_seconds(DAY_SECONDS) } else { at }),
        };
        Ok((page, size, filter))
    }
}

/// A job in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct ItemView {
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

/// A page of jobs.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct ListView {
    /// Newest first.
    items: Vec<ItemView>,
    /// On all pages.
    total: i64,
    /// From 1.
    page: usize,
    /// Jobs on a full page.
    page_size: usize,
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(ListQuery),
    responses((status = 200, body = Good<ListView>), (status = 422)))]
async fn list_jobs(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Response> {
    let (page, size, filter) = query.parse()?;
    let (jobs, total) = app.jobs.list(filter, size, (page - 1).saturating_mul(size)).await?;
    let item = |job: Job| ItemView {
        job_id: model::shown(job.id),
        status: job.status,
        git_repo: job.plan.git_repo,
        git_branch: job.plan.git_branch,
        requested_at: job.requested_at.rfc3339(),
        finished_at: job.finished_at.map(Micros::rfc3339),
        targets_count: job.targets_count,
    };
    let view = ListView { items: jobs.into_iter().map(item).collect(), total, page, page_size: size };
    Ok(good(StatusCode::OK, view))
}

fn job_id(text: &str) -> Result<i64> {
    parse_id(text).ok_or_else(|| Error::NotFound("Job not found".into()))
}

/// A host of a job.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct TargetView {
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
struct DetailView {
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

/// One job with its hosts.
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}", tag = "jobs", params(("job_id" = String, Path)),
    responses((status = 200, body = Good<DetailView>), (status = 404)))]
async fn get_job(State(app): State<App>, Path(id): Path<String>) -> Result<Response> {
    let id = job_id(&id)?;
    // The job first: when it is over, its targets are.
    let job = app.jobs.job(id).await?;
    let targets = app.jobs.targets(id).await?;
    let approval = app.jobs.approval(id).await?;
    let view = DetailView {
        job_id: model::shown(id),
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
    };
    Ok(good(StatusCode::OK, view))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// `text` unless given, or `json`.
    format: Option<String>,
    /// With `json`: only lines behind this one.
    #[param(value_type = Option<u64>)]
    from_id: Option<String>,
}

/// A job's log, as text or line by line.
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}/logs", tag = "jobs", params(("job_id" = String, Path), LogQuery),
    responses((status = 200, content((String = "text/plain"), (Good<LinesView> = "application/json"))),
        (status = 404), (status = 422)))]
async fn get_logs(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response> {
    match query.format.as_deref() {
        None | Some("text") => logs::text(&app.jobs, job_id(&id)?).await,
        Some("json") => {
            let from = query.from_id.as_ref().map_or(Some(0), |text| text.parse().ok()).filter(|n| *n >= 0);
            let from = from.ok_or_else(|| Error::invalid("from_id", "must be a whole number from 0"))?;
            Ok(good(StatusCode::OK, logs::lines(&app.jobs, job_id(&id)?, from).await?))
        }
        Some(_) => Err(Error::invalid("format", "must be text or json")),
    }
}

/// The same once more, as a new job.
#[utoipa::path(post, path = "/api/v1/jobs/{job_id}/retry", tag = "jobs", params(("job_id" = String, Path), WaitQuery),
    responses((status = 202, body = Good<Brief>), (status = 200, body = Good<Brief>), (status = 404), (status = 409)))]
async fn retry_job(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Response> {
    let limit = query.limit()?;
    let id = app.jobs.retry(&by, &caller, job_id(&id)?).await?;
    accepted(&app, id, limit).await
}

/// To what a job's hosts go back.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes the body")]
struct RollbackRequest {
    /// The whole id of a commit that a finished job deployed there.
    commit: String,
}

/// Brings every host of a job back to a commit that was deployed there before, as a new job.
#[utoipa::path(post, path = "/api/v1/jobs/{job_id}/rollback", request_body = RollbackRequest, tag = "jobs",
    params(("job_id" = String, Path), WaitQuery),
    responses((status = 202, body = Good<Brief>), (status = 200, body = Good<Brief>), (status = 404), (status = 409),
        (status = 422)))]
async fn rollback_job(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
    body: JsonBytes,
) -> Result<Response> {
    let limit = query.limit()?;
    let body: Value = body.parse()?;
    let commit = request::commit(&body)?;
    let id = app.jobs.rollback(&by, &caller, job_id(&id)?, commit).await?;
    accepted(&app, id, limit).await
}

/// Ends a job before its time.
#[utoipa::path(post, path = "/api/v1/jobs/{job_id}/cancel", tag = "jobs", params(("job_id" = String, Path)),
    responses((status = 202, body = Good<Brief>), (status = 404), (status = 409)))]
async fn cancel_job(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
) -> Result<Response> {
    let id = job_id(&id)?;
    let status = app.jobs.cancel(&by, &caller, id).await?;
    Ok(good(StatusCode::ACCEPTED, brief(id, status)))
}
