//! HTTP in, HTTP out: agents, their keys and what they say first.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use signet_common::AgentId;
use signet_common::envelope::DsseJson;
use signet_common::time::Micros;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::enrolment::{self, KEYRING_HEADER};
use super::leaving;
use super::model::KeyStanding;
use super::routes::{forget_at_broker, hosts_limit};
use super::store::AgentRow;
use crate::app::App;
use crate::dispatch::OrphanRow;
use crate::error::{Error, Result};
use crate::http::extract::{Author, Json, Path, Peer, Query};
use crate::http::list::{cursor, cursor_of, json_array, link_next, listed, page, page_limit};
use crate::limits::{ORPHANS_AT_ONCE, ORPHANS_PAGE_MAX};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_nonce))
        .routes(routes!(get_controller_key))
        .routes(routes!(post_hello))
        .routes(routes!(post_leave))
        .routes(routes!(list_agents))
        .routes(routes!(accept_agent))
        .routes(routes!(revoke_agent))
        .routes(routes!(get_orphans))
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct NonceView {
    /// Counts in one hello or leave, within two minutes.
    nonce: String,
}

/// A nonce for one hello or leave.
#[utoipa::path(get, path = "/api/agents/nonce", tag = "agents", security(()),
    responses((status = 200, body = NonceView)))]
async fn get_nonce(State(app): State<App>) -> Result<axum::Json<NonceView>> {
    Ok(axum::Json(NonceView { nonce: enrolment::nonce(&app)? }))
}

/// The fleet's current signing key in PEM, for agents that are enrolled by hand.
#[utoipa::path(get, path = "/api/agents/controller-key", tag = "agents",
    responses((status = 200, content_type = "application/x-pem-file", body = String)))]
async fn get_controller_key(State(app): State<App>) -> Result<Response> {
    let pem = app.keys.newest(&app.store).await?.keyring().current().to_pem();
    Ok(([(CONTENT_TYPE, "application/x-pem-file")], pem + "\n").into_response())
}

/// An agent introduces itself, signed with its own key; the answer is signed with the fleet's. Both are DSSE envelopes;
/// the header `signet-keyring` carries the keyring chain.
#[utoipa::path(post, path = "/api/agents/hello", tag = "agents", security(()),
    request_body(content = String, content_type = "application/json"),
    responses((status = 200), (status = 401), (status = 403), (status = 409), (status = 503)))]
async fn post_hello(
    State(app): State<App>,
    by: Author,
    peer: Peer,
    Json(body): Json<DsseJson>,
) -> Result<Response> {
    let answer = enrolment::hello(&app, &by, peer.ip, &body).await?;
    let headers = [(HeaderName::from_static(KEYRING_HEADER), answer.keyring)];
    Ok((headers, axum::Json(answer.welcome)).into_response())
}

/// An agent asks that its own key be revoked, signed with that key, as a DSSE envelope.
#[utoipa::path(post, path = "/api/agents/leave", tag = "agents", security(()),
    request_body(content = String, content_type = "application/json"),
    responses((status = 204), (status = 401), (status = 404)))]
async fn post_leave(State(app): State<App>, by: Author, Json(body): Json<DsseJson>) -> Result<StatusCode> {
    leaving::leave(&app, &by, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A key that an agent came with.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct AgentView {
    agent_id: String,
    hostname: String,
    fingerprint: String,
    /// `accepted`, `pending`, `replaced` or `revoked`
    standing: &'static str,
    created_at: String,
    updated_at: String,
}

impl TryFrom<AgentRow> for AgentView {
    type Error = Error;
    fn try_from(row: AgentRow) -> Result<Self> {
        let known = row.known()?;
        Ok(Self {
            agent_id: row.agent_id,
            hostname: row.hostname,
            fingerprint: known.key.id().to_string(),
            standing: known.standing.as_str(),
            created_at: Micros(row.created_at).rfc3339(),
            updated_at: Micros(row.updated_at).rfc3339(),
        })
    }
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AgentQuery {
    /// At most this many; 10,000 unless given.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
    /// Only these.
    standing: Option<String>,
}

/// Every key that an agent came with, by agent id.
#[utoipa::path(get, path = "/api/agents", tag = "agents", params(AgentQuery),
    responses((status = 200, body = Vec<AgentView>)))]
async fn list_agents(State(app): State<App>, uri: Uri, Query(query): Query<AgentQuery>) -> Result<Response> {
    let limit = hosts_limit(query.limit)?;
    let parse = |text: &str| {
        let unknown =
            || Error::invalid("standing", "standing must be accepted, pending, replaced or revoked");
        KeyStanding::parse(text).ok_or_else(unknown)
    };
    let standing = query.standing.as_deref().map(parse).transpose()?;
    let rows = app.hosts.agents(standing, &query.cursor.unwrap_or_default(), limit + 1).await?;
    let (rows, next) = page(rows, limit, |row| row.agent_id.clone());
    let views: Vec<AgentView> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    Ok(listed(&views, &uri, next.as_deref()))
}

fn agent_id(text: &str) -> Result<AgentId> {
    text.parse().map_err(|_| Error::NotFound("Agent not found".into()))
}

/// Accepts a pending key after its fingerprint was compared, or a host that was set aside.
#[utoipa::path(post, path = "/api/agents/{agent_id}/accept", tag = "agents", params(("agent_id" = String, Path)),
    responses((status = 200, body = AgentView), (status = 404), (status = 409)))]
async fn accept_agent(
    State(app): State<App>,
    by: Author,
    Path(id): Path<String>,
) -> Result<axum::Json<AgentView>> {
    let id = agent_id(&id)?;
    app.hosts.accept(&by, &app.dispatch, &id).await?;
    tracing::warn!(agent = %id, "agent accepted");
    Ok(axum::Json(app.hosts.agent(&id).await?.try_into()?))
}

/// Revokes a key: nothing it says counts any more.
#[utoipa::path(post, path = "/api/agents/{agent_id}/revoke", tag = "agents", params(("agent_id" = String, Path)),
    responses((status = 200, body = AgentView), (status = 404)))]
async fn revoke_agent(
    State(app): State<App>,
    by: Author,
    Path(id): Path<String>,
) -> Result<axum::Json<AgentView>> {
    let id = agent_id(&id)?;
    app.hosts.revoke(&by, &app.dispatch, &id).await?;
    forget_at_broker(&app, id.clone()).await;
    tracing::warn!(agent = %id, "agent revoked");
    Ok(axum::Json(app.hosts.agent(&id).await?.try_into()?))
}

/// An event about a message that this database does not know, or that was not for this host.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct OrphanView {
    log_id: String,
    seq: i64,
    received_at: String,
    /// As the agent wrote it.
    event: serde_json::Value,
}

impl TryFrom<OrphanRow> for OrphanView {
    type Error = Error;
    fn try_from(row: OrphanRow) -> Result<Self> {
        let event = serde_json::from_slice(&row.event).map_err(|e| Error::Internal(e.to_string()))?;
        let received_at = Micros(row.received_at).rfc3339();
        Ok(Self { log_id: row.log_id, seq: row.seq, received_at, event })
    }
}

/// Where a reader of orphans is: log and event.
type Place = (String, i64);

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OrphanQuery {
    /// At most this many; 10,000 unless given.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
}

/// What an agent reported about messages that this database does not know, as after a restore.
#[utoipa::path(get, path = "/api/agents/{agent_id}/orphans", tag = "agents",
    params(("agent_id" = String, Path), OrphanQuery),
    responses((status = 200, body = Vec<OrphanView>), (status = 404)))]
async fn get_orphans(
    State(app): State<App>,
    uri: Uri,
    Path(id): Path<String>,
    Query(query): Query<OrphanQuery>,
) -> Result<Response> {
    let id = agent_id(&id)?;
    let limit = page_limit(query.limit, ORPHANS_PAGE_MAX, ORPHANS_PAGE_MAX)?;
    let from =
        cursor::<i64, String>(query.cursor.as_deref())?.map_or((String::new(), 0), |(seq, log)| (log, seq));
    app.hosts.agent(&id).await?;
    let next = app.dispatch.orphans_end(&id, &from, limit).await?;
    let dispatch = app.dispatch.clone();
    let read = move |(from, left): (Place, usize)| {
        let (dispatch, id) = (dispatch.clone(), id.clone());
        async move {
            let wanted = left.min(ORPHANS_AT_ONCE);
            let rows = dispatch.orphans(&id, &from, wanted).await?;
            let last = rows.last().map(|row| (row.log_id.clone(), row.seq));
            let more =
                last.filter(|_| rows.len() == wanted && left > wanted).map(|last| (last, left - wanted));
            let views = rows.into_iter().map(OrphanView::try_from).collect::<Result<Vec<_>>>()?;
            Ok((views, more))
        }
    };
    let mut response = json_array((from, limit), read).await?;
    if let Some((log, seq)) = next {
        link_next(&mut response, &uri, &cursor_of(seq, log));
    }
    Ok(response)
}
