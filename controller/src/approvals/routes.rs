//! HTTP in, HTTP out: requests for approval.

use axum::extract::State as With;
use axum::response::Response;
use http::Uri;
use serde::Deserialize;
use signet_common::TaskId;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::State;
use super::service::Word;
use super::view::{ApprovalDetail, ApprovalView};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::extract::{Author, Caller, Json, Path, Query};
use crate::http::list::{cursor, cursor_of, listed, page_limit};
use crate::limits::{APPROVALS_LIMIT, APPROVALS_LIMIT_MAX, REFUSAL_CHARS_MAX};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_approvals))
        .routes(routes!(get_approval))
        .routes(routes!(approve))
        .routes(routes!(refuse))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ApprovalQuery {
    /// At most this many; 100 unless given, 1,000 at most. A page may hold fewer although there is a next one.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
    /// Only these: `awaiting`, `approved`, `refused` or `ended`.
    state: Option<String>,
}

/// Requests for approval, newest first.
#[utoipa::path(get, path = "/api/approvals", tag = "approvals", params(ApprovalQuery),
    responses((status = 200, body = Vec<ApprovalView>)))]
async fn list_approvals(
    With(app): With<App>,
    uri: Uri,
    Query(query): Query<ApprovalQuery>,
) -> Result<Response> {
    let state = |text: &String| {
        let unknown = || Error::invalid("state", "state must be awaiting, approved, refused or ended");
        State::parse(text).ok_or_else(unknown)
    };
    let state = query.state.as_ref().map(state).transpose()?;
    let limit = page_limit(query.limit, APPROVALS_LIMIT, APPROVALS_LIMIT_MAX)?;
    let from = cursor::<i64, TaskId>(query.cursor.as_deref())?;
    let from = from.map_or((i64::MAX, String::new()), |(at, id)| (at, id.to_string()));
    let (views, next) = app.approvals.page(state, &from, limit).await?;
    let next = next.map(|(at, id)| cursor_of(at, id));
    Ok(listed(&views, &uri, next.as_deref()))
}

fn task_id(text: &str) -> Result<TaskId> {
    text.parse().map_err(|_| Error::NotFound("Task not found".into()))
}

/// One request with everything that is agreed to. Who may approve it sees the statement's exact bytes.
#[utoipa::path(get, path = "/api/approvals/{task_id}", tag = "approvals", params(("task_id" = String, Path)),
    responses((status = 200, body = ApprovalDetail), (status = 404)))]
async fn get_approval(
    With(app): With<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<ApprovalDetail>> {
    Ok(axum::Json(app.approvals.detail(&caller, &task_id(&id)?).await?))
}

/// Somebody agrees.
#[derive(Debug, Deserialize, ToSchema)]
struct ApproveBody {
    /// The statement's SHA-256 in hex, so that nobody agrees to what was not read.
    digest: String,
    /// An SSH signature over the statement's exact bytes (`ssh-keygen -Y sign -n signet-approval`), by a registered key.
    signature: Option<String>,
}

/// Agrees to a request; the last approval that is needed lets it go. To agree again changes nothing.
#[utoipa::path(post, path = "/api/approvals/{task_id}/approve", tag = "approvals", request_body = ApproveBody,
    params(("task_id" = String, Path)),
    responses((status = 200, body = ApprovalView), (status = 400), (status = 403), (status = 404), (status = 409)))]
async fn approve(
    With(app): With<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
    Json(body): Json<ApproveBody>,
) -> Result<axum::Json<ApprovalView>> {
    let id = task_id(&id)?;
    let word = Word { digest: body.digest, signature: body.signature };
    app.approvals.approve(&caller, &by, &id, &word, &app.jobs).await?;
    tracing::info!(task_id = %id, by = %caller, signed = word.signature.is_some(), "approved");
    shown(&app, &id).await
}

/// Somebody says no.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct RefuseBody {
    /// For those who wait for it.
    reason: Option<String>,
}

/// Refuses a request: nothing of it ever runs.
#[utoipa::path(post, path = "/api/approvals/{task_id}/refuse", tag = "approvals", request_body = RefuseBody,
    params(("task_id" = String, Path)),
    responses((status = 200, body = ApprovalView), (status = 403), (status = 404), (status = 409)))]
async fn refuse(
    With(app): With<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
    Json(body): Json<RefuseBody>,
) -> Result<axum::Json<ApprovalView>> {
    let id = task_id(&id)?;
    let reason = body.reason.as_deref().filter(|reason| !reason.is_empty());
    if reason.is_some_and(|reason| reason.chars().count() > REFUSAL_CHARS_MAX) {
        let text = format!("reason must have at most {REFUSAL_CHARS_MAX} characters");
        return Err(Error::invalid("reason", text));
    }
    app.approvals.refuse(&caller, &by, &id, reason).await?;
    tracing::info!(task_id = %id, by = %caller, "refused");
    shown(&app, &id).await
}

async fn shown(app: &App, id: &TaskId) -> Result<axum::Json<ApprovalView>> {
    let view = app.approvals.of(&app.store, id).await?;
    view.map(axum::Json).ok_or_else(|| Error::NotFound("Task not found".into()))
}
