//! HTTP in, HTTP out.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use signet_common::envelope::DsseJson;
use signet_common::messages::Stream;
use signet_common::{Hostname, TaskId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{TargetType, TaskDetail, TaskView};
use super::output;
use super::request::CommandRequest;
use super::results::{self, ResultView};
use super::service::Repeat;
use super::store::{Filter, Place};
use super::{bundle, events};
use crate::app::App;
use crate::dispatch::Target;
use crate::error::{Error, Result};
use crate::http::dialect::texts;
use crate::http::extract::{Author, Caller, Json, JsonBytes, Path, Query, moment};
use crate::http::list::{cursor, cursor_of, json_array, link_next, page_limit};
use crate::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, PAUSE_REASON_CHARS_MAX, RESULT_HOSTS_AT_ONCE, RESULTS_LIMIT, TASKS_AT_ONCE,
    TASKS_LIMIT,
};

/// The slice's routes.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(post_command))
        .routes(routes!(list_tasks))
        .routes(routes!(get_task))
        .routes(routes!(get_results))
        .routes(routes!(get_bundle))
        .routes(routes!(cancel_task))
        .routes(routes!(watch_task))
        .routes(routes!(get_output))
        .routes(routes!(get_dispatch, put_dispatch))
}

/// Runs a command on every host that matches now.
#[utoipa::path(post, path = "/api/commands", request_body = CommandRequest, tag = "commands",
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key and body: the same task")),
    responses((status = 201, body = TaskView), (status = 400), (status = 404), (status = 413)))]
async fn post_command(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    headers: HeaderMap,
    body: JsonBytes,
) -> Result<Response> {
    let key = headers.get("idempotency-key").map(|v| v.to_str().unwrap_or_default().to_owned());
    if key.as_ref().is_some_and(|k| k.is_empty() || k.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
        let text =
            format!("Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
        return Err(Error::invalid("Idempotency-Key", text));
    }
    let digest = hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body.0));
    let request = body.parse::<CommandRequest>()?.check()?;
    let task = app
        .commands
        .ask(&by, request, Repeat { account: caller.name, key, digest }, caller.groups.as_ref())
        .await?;
    tracing::info!(task_id = %task.task_id, target_type = task.target_type.as_str(), "command asked for");
    Ok((StatusCode::CREATED, axum::Json(task)).into_response())
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TaskQuery {
    /// At most this many tasks; 1,000 unless given, 10,000 at most.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
    /// Only these.
    target_type: Option<String>,
    /// Only these.
    target: Option<String>,
    /// Only tasks from this moment on (RFC 3339).
    since: Option<String>,
}

impl TaskQuery {
    fn filter(&self) -> Result<Filter> {
        let kind = |t: &String| {
            TargetType::parse(t).ok_or_else(|| Error::invalid("target_type", texts::TARGET_TYPE))
        };
        Ok(Filter {
            target_type: self.target_type.as_ref().map(kind).transpose()?,
            target: self.target.clone(),
            since: moment("since", self.since.as_deref())?,
        })
    }
}

/// Tasks, newest first.
#[utoipa::path(get, path = "/api/tasks", tag = "commands", params(TaskQuery),
    responses((status = 200, body = Vec<TaskView>)))]
async fn list_tasks(State(app): State<App>, uri: Uri, Query(query): Query<TaskQuery>) -> Result<Response> {
    let filter = query.filter()?;
    let limit = page_limit(query.limit, TASKS_LIMIT, 10 * TASKS_LIMIT)?;
    let from = cursor::<i64, TaskId>(query.cursor.as_deref())?;
    let from = from.map_or((i64::MAX, String::new()), |(at, id)| (at, id.to_string()));
    let next = app.commands.list_end(&filter, &from, limit).await?;
    let commands = app.commands.clone();
    let read = move |(from, left): (Place, usize)| {
        let (commands, filter) = (commands.clone(), filter.clone());
        async move {
            let wanted = left.min(TASKS_AT_ONCE);
            let tasks = commands.list(&filter, &from, wanted).await?;
            let last = tasks.last().map(|(_, place)| place.clone());
            let more =
                last.filter(|_| tasks.len() == wanted && left > wanted).map(|last| (last, left - wanted));
            Ok((tasks.into_iter().map(|(view, _)| view).collect::<Vec<_>>(), more))
        }
    };
    let mut response = json_array((from, limit), read).await?;
    if let Some((at, id)) = next {
        link_next(&mut response, &uri, &cursor_of(at, id));
    }
    Ok(response)
}

fn task_id(text: &str) -> Result<TaskId> {
    text.parse().map_err(|_| Error::NotFound("Task not found".into()))
}

/// One task with its hosts.
#[utoipa::path(get, path = "/api/tasks/{task_id}", tag = "commands", params(("task_id" = String, Path)),
    responses((status = 200, body = TaskDetail), (status = 404)))]
async fn get_task(State(app): State<App>, Path(id): Path<String>) -> Result<axum::Json<TaskDetail>> {
    Ok(axum::Json(app.commands.detail(&task_id(&id)?).await?))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ResultQuery {
    /// At most this many results; 1,000 unless given, 10,000 at most.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
    /// `base64` adds the kept bytes of both streams.
    encoding: Option<String>,
}

/// Every target in a final state, in order of finishing.
#[utoipa::path(get, path = "/api/tasks/{task_id}/results", tag = "commands",
    params(("task_id" = String, Path), ResultQuery),
    responses((status = 200, body = Vec<ResultView>), (status = 404)))]
async fn get_results(
    State(app): State<App>,
    uri: Uri,
    Path(id): Path<String>,
    Query(query): Query<ResultQuery>,
) -> Result<Response> {
    let id = task_id(&id)?;
    let limit = page_limit(query.limit, RESULTS_LIMIT, 10 * RESULTS_LIMIT)?;
    let base64 = match query.encoding.as_deref() {
        None | Some("utf-8") => false,
        Some("base64") => true,
        Some(_) => return Err(Error::invalid("encoding", "encoding must be utf-8 or base64")),
    };
    let from: results::Place = cursor(query.cursor.as_deref())?.unwrap_or_default();
    let mut ended = app.commands.dispatch().finished(&id, from, limit + 1).await?;
    if ended.is_empty() {
        // Many ask again and again until there is something; only here it may be that there is no such task.
        app.commands.task(&id).await?;
        return Ok(axum::Json(Vec::<ResultView>::new()).into_response());
    }
    let last = (ended.len() > limit).then(|| ended.get(limit - 1)).flatten();
    let cursor = last.map(|t| cursor_of(t.final_seq.unwrap_or(0), t.ordinal));
    let commands = app.commands.clone();
    ended.truncate(limit.min(RESULT_HOSTS_AT_ONCE));
    let read = move |(targets, left): (Vec<Target>, usize)| {
        let (commands, id) = (commands.clone(), id.clone());
        async move {
            let (views, place) = results::of(&commands, &id, targets, base64).await?;
            let left = left - views.len();
            let Some(place) = place.filter(|_| left > 0) else { return Ok((views, None)) };
            let next = commands.dispatch().finished(&id, place, left.min(RESULT_HOSTS_AT_ONCE)).await?;
            Ok((views, (!next.is_empty()).then_some((next, left))))
        }
    };
    let mut response = json_array((ended, limit), read).await?;
    if let Some(cursor) = cursor {
        link_next(&mut response, &uri, &cursor);
    }
    Ok(response)
}

/// The task as proof: the signed commands, what was approved, and what each host said, signed by its agent. A DSSE
/// envelope by the fleet's key, for `signet verify`.
#[utoipa::path(get, path = "/api/tasks/{task_id}/bundle", tag = "commands", params(("task_id" = String, Path)),
    responses((status = 200, content_type = "application/json", body = String), (status = 404), (status = 413)))]
async fn get_bundle(State(app): State<App>, Path(id): Path<String>) -> Result<axum::Json<DsseJson>> {
    Ok(axum::Json(bundle::bundle(&app, &task_id(&id)?).await?))
}

/// Cancels what is open of a task; repeating it does no harm.
#[utoipa::path(post, path = "/api/tasks/{task_id}/cancel", tag = "commands", params(("task_id" = String, Path)),
    responses((status = 200, body = TaskDetail), (status = 404)))]
async fn cancel_task(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Path(id): Path<String>,
) -> Result<axum::Json<TaskDetail>> {
    let id = task_id(&id)?;
    tracing::info!(task_id = %id, "cancel asked for");
    Ok(axum::Json(app.commands.cancel(&by, &id, caller.groups.as_ref()).await?))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// Like the header `Last-Event-ID`, which wins.
    last_event_id: Option<String>,
}

/// Live output and states as server-sent events: `task`, `state`, `output`, and `done` at the end.
#[utoipa::path(get, path = "/api/tasks/{task_id}/events", tag = "commands",
    params(("task_id" = String, Path), WatchQuery),
    responses((status = 200, content_type = "text/event-stream"), (status = 404)))]
async fn watch_task(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let header = headers.get("last-event-id").and_then(|v| v.to_str().ok().map(str::to_owned));
    let after = match header.or(query.last_event_id) {
        None => 0,
        Some(text) => {
            text.parse().map_err(|_| Error::invalid("Last-Event-ID", "Last-Event-ID is not one of ours"))?
        }
    };
    let bells = app.live.subscribe();
    let stream = events::watch(app.commands.clone(), bells, task_id(&id)?, after, app.stop.clone()).await?;
    Ok(stream.into_response())
}

/// All kept output of one stream of one host, as bytes; ranges count kept bytes.
#[utoipa::path(get, path = "/api/tasks/{task_id}/targets/{hostname}/{stream}", tag = "commands",
    params(("task_id" = String, Path), ("hostname" = String, Path),
        ("stream" = String, Path, description = "`stdout` or `stderr`")),
    responses((status = 200, content_type = "application/octet-stream"), (status = 206), (status = 404),
        (status = 416)))]
async fn get_output(
    State(app): State<App>,
    Path((id, host, stream)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response> {
    let unknown = || Error::NotFound("Target not found".into());
    let host: Hostname = host.parse().map_err(|_| unknown())?;
    let stream =
        [Stream::Stdout, Stream::Stderr].into_iter().find(|s| s.as_str() == stream).ok_or_else(unknown)?;
    output::output(&app.commands, task_id(&id)?, host, stream, &headers).await
}

/// The switch that holds `command` and `deploy` for the whole installation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
struct DispatchSwitch {
    /// Whether dispatch is held.
    paused: bool,
    /// Why, and who did it; null when it isn't.
    reason: Option<String>,
    /// Why nothing is sent whatever this switch says: hosts hold a newer keyring than the database. Only in answers.
    #[serde(default)]
    held: Option<String>,
}

/// Whether dispatch is paused, or held for another reason.
#[utoipa::path(get, path = "/api/dispatch", tag = "commands", responses((status = 200, body = DispatchSwitch)))]
async fn get_dispatch(State(app): State<App>) -> Result<axum::Json<DispatchSwitch>> {
    let reason = app.dispatch.paused().await?;
    let held = app.dispatch.keyring_old().await?;
    Ok(axum::Json(DispatchSwitch { paused: reason.is_some(), reason, held }))
}

/// Pauses dispatch, or lets it go on. What runs goes on; cancels are not held.
#[utoipa::path(put, path = "/api/dispatch", tag = "commands", request_body = DispatchSwitch,
    responses((status = 200, body = DispatchSwitch)))]
async fn put_dispatch(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Json(switch): Json<DispatchSwitch>,
) -> Result<axum::Json<DispatchSwitch>> {
    if switch.reason.as_ref().is_some_and(|why| why.chars().count() > PAUSE_REASON_CHARS_MAX) {
        let what = format!("reason must have at most {PAUSE_REASON_CHARS_MAX} characters");
        return Err(Error::invalid("reason", what));
    }
    if caller.groups.is_some() {
        return Err(Error::Forbidden("this account may not hold the whole installation".into()));
    }
    let why = switch.reason.as_deref().filter(|r| !r.is_empty()).map_or(String::new(), |r| format!(": {r}"));
    let text = format!("paused by {}{why}", caller.name);
    app.dispatch.set_paused(&by, switch.paused.then_some(text.as_str())).await?;
    tracing::warn!(paused = switch.paused, by = %caller.name, "dispatch switched");
    get_dispatch(State(app)).await
}
