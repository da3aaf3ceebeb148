//! HTTP in, HTTP out.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use signet_common::time::Micros;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Good, good, page};
use super::logs::{self, LinesView};
use super::model::{JobStatus, parse_id};
use super::request::schema::{JobRequest, RollbackRequest};
use super::store::Filter;
use super::views::{Brief, DetailView, ListView, brief};
use super::{deployments, host_keys, request};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::extract::{Author, Caller, JsonBytes, Path, Query};
use crate::limits::JOB_WAIT_SECONDS_MAX;

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

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(ListQuery),
    responses((status = 200, body = Good<ListView>), (status = 422)))]
async fn list_jobs(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let (page, size, filter) = query.parse()?;
    let (jobs, total) = app.jobs.list(&caller, filter, size, (page - 1).saturating_mul(size)).await?;
    let view = ListView { items: jobs.into_iter().map(Into::into).collect(), total, page, page_size: size };
    Ok(good(StatusCode::OK, view))
}

fn job_id(text: &str) -> Result<i64> {
    parse_id(text).ok_or_else(|| Error::NotFound("Job not found".into()))
}

/// One job with its hosts.
#[utoipa::path(get, path = "/api/v1/jobs/{job_id}", tag = "jobs", params(("job_id" = String, Path)),
    responses((status = 200, body = Good<DetailView>), (status = 404)))]
async fn get_job(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response> {
    let job = app.jobs.seen(&caller, job_id(&id)?).await?;
    Ok(good(StatusCode::OK, app.jobs.detail(job.id).await?))
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
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response> {
    let job = app.jobs.seen(&caller, job_id(&id)?).await?;
    match query.format.as_deref() {
        None | Some("text") => Ok(logs::text(&app.jobs, job.id)),
        Some("json") => {
            let from = query.from_id.as_ref().map_or(Some(0), |text| text.parse().ok()).filter(|n| *n >= 0);
            let from = from.ok_or_else(|| Error::invalid("from_id", "must be a whole number from 0"))?;
            Ok(good(StatusCode::OK, logs::lines(&app.jobs, &job, from).await?))
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
    let id = app.jobs.seen(&caller, job_id(&id)?).await?.id;
    let status = app.jobs.cancel(&by, &caller, id).await?;
    Ok(good(StatusCode::ACCEPTED, brief(id, status)))
}
