//! HTTP in, HTTP out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use signet_common::bus::Queue;
use signet_common::envelope::DsseJson;
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, PublicKey};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::enrolment::{self, KEYRING_HEADER};
use super::model::KeyStanding;
use super::service::{DEFAULT_GROUP, HostKey, NewServer, Server, unknown_server};
use super::store::{AgentRow, ServerFilter};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::dialect::texts;
use crate::http::extract::{Json, Path, Peer, Query};
use crate::http::list::link_next;
use crate::limits::{
    GROUP_CHARS_MAX, HOSTS_PAGE_MAX, LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, LIST_CHUNK_ROWS,
};

/// The slice's routes.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_servers, post_server))
        .routes(routes!(get_server, patch_server, delete_server))
        .routes(routes!(list_client_keys))
        .routes(routes!(get_client_key, put_client_key))
        .routes(routes!(get_nonce))
        .routes(routes!(get_controller_key))
        .routes(routes!(post_hello))
        .routes(routes!(list_agents))
        .routes(routes!(accept_agent))
        .routes(routes!(revoke_agent))
        .routes(routes!(get_orphans))
}

/// A server: the document's seven fields first, in its order.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct ServerView {
    hostname: String,
    ip: String,
    group: String,
    /// `online` or `offline`
    status: &'static str,
    /// UTC, whole seconds; null before the first.
    last_heartbeat: Option<String>,
    /// 0 to 100, one decimal; the last value is kept when offline.
    cpu_usage: Option<f64>,
    /// 0 to 100, one decimal.
    memory_usage: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl ServerView {
    fn new(server: Server, now: Micros) -> Self {
        Self {
            status: if server.online(now) { "online" } else { "offline" },
            last_heartbeat: server.row.received_at.map(|at| Micros(at).rfc3339()),
            cpu_usage: server.row.cpu_usage,
            memory_usage: server.row.memory_usage,
            hostname: server.row.hostname,
            ip: server.row.ip,
            group: server.row.grp,
            labels: server.labels,
        }
    }
}

/// A server with everything that tells why it works or doesn't.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct ServerDetail {
    #[serde(flatten)]
    server: ServerView,
    created_at: String,
    /// The accepted agent; null without one.
    agent_id: Option<String>,
    /// SHA-256 of its key.
    fingerprint: Option<String>,
    /// `none`, `catching_up`, `set_aside` or `accepted`; null before its first hello.
    hold: Option<&'static str>,
    hold_reason: Option<String>,
    /// Events of its journal that were taken in.
    cursor: Option<u64>,
    /// The newest keyring's version; an agent that holds an older one gets no work.
    newest_keyring: u64,
    /// Other keys that claim this name, with their fingerprints.
    pending: Vec<String>,
    /// What its newest heartbeat says; null before the first.
    agent: Option<AgentState>,
}

/// What an agent's newest heartbeat says.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct AgentState {
    version: String,
    features: serde_json::Value,
    keyring: i64,
    /// Ahead of the controller's clock; dispatch needs at most 60,000 either way.
    clock_offset_ms: i64,
    /// Events in its journal.
    head: i64,
    stopping: bool,
    /// Why it takes no work; null when it does.
    busy: Option<String>,
    /// A policy file narrows what it runs.
    narrowed: bool,
    /// `cgroup` or `process_group`
    isolation: String,
    waiting: i64,
    running: i64,
    disk_usage: f64,
    load: String,
    uptime: i64,
    boot_id: String,
    /// Messages that it did not believe since its start, by reason.
    refused: serde_json::Value,
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ServerQuery {
    /// At most this many; 10,000 unless given.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
    /// Only this group's.
    group: Option<String>,
    /// `online` or `offline`.
    status: Option<String>,
    /// `name=value`.
    label: Option<String>,
}

fn limit(asked: Option<u32>) -> Result<usize> {
    match asked {
        Some(0) => Err(Error::invalid("limit", "limit must be at least 1")),
        asked => Ok(asked.unwrap_or(HOSTS_PAGE_MAX).min(HOSTS_PAGE_MAX) as usize),
    }
}

/// Servers by name.
#[utoipa::path(get, path = "/api/servers", tag = "servers", params(ServerQuery),
    responses((status = 200, body = Vec<ServerView>)))]
async fn list_servers(
    State(app): State<App>,
    uri: Uri,
    Query(query): Query<ServerQuery>,
) -> Result<Response> {
    let limit = limit(query.limit)?;
    let label = query.label.as_deref().map(|l| {
        let pair = l.split_once('=').ok_or_else(|| Error::invalid("label", "label must be name=value"))?;
        Ok::<_, Error>((pair.0.to_owned(), pair.1.to_owned()))
    });
    let online = match query.status.as_deref() {
        None => None,
        Some("online") => Some(true),
        Some("offline") => Some(false),
        Some(_) => return Err(Error::invalid("status", "status must be online or offline")),
    };
    let filter = ServerFilter { group: query.group, label: label.transpose()? };
    let now = Micros::now();
    let mut after = query.cursor.unwrap_or_default();
    let mut views = Vec::new();
    let mut more = true;
    while more && views.len() < limit {
        let some = app.hosts.servers(&filter, &after, LIST_CHUNK_ROWS as usize).await?;
        more = some.len() == LIST_CHUNK_ROWS as usize;
        for server in some {
            if views.len() == limit {
                more = true;
                break;
            }
            after.clone_from(&server.row.hostname);
            if online.is_none_or(|wanted| server.online(now) == wanted) {
                views.push(ServerView::new(server, now));
            }
        }
    }
    let mut response = axum::Json(views).into_response();
    if more {
        link_next(&mut response, &uri, &after);
    }
    Ok(response)
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
struct ServerBody {
    /// RFC 1123; kept in lower case.
    hostname: String,
    /// IPv4 or IPv6.
    ip: String,
    /// `default` unless given.
    group: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

fn hostname(text: &str) -> Result<Hostname> {
    text.parse().map_err(|_| Error::invalid("hostname", "hostname must be a valid RFC 1123 name"))
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid("ip", "ip must be an IPv4 or IPv6 address"))
}

fn group(text: String) -> Result<String> {
    let count = text.chars().count();
    if count == 0 || count > GROUP_CHARS_MAX || text.trim() != text || text.contains(char::is_control) {
        let what =
            format!("group must have 1 to {GROUP_CHARS_MAX} printable characters and no blanks around them");
        return Err(Error::invalid("group", what));
    }
    Ok(text)
}

fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if labels.len() > LABELS_MAX {
        return Err(Error::invalid("labels", format!("at most {LABELS_MAX} labels")));
    }
    for (name, value) in &labels {
        let named = (1..=LABEL_NAME_BYTES_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        let valued = value.len() <= LABEL_VALUE_BYTES_MAX
            && value.trim() == value
            && !value.contains(char::is_control);
        if !named || !valued {
            return Err(Error::invalid(format!("labels.{name}"), "not a valid label"));
        }
    }
    Ok(labels)
}

/// Adds a server; its agent comes with its first hello, or with its key.
#[utoipa::path(post, path = "/api/servers", tag = "servers", request_body = ServerBody,
    responses((status = 201, body = ServerView), (status = 400), (status = 409)))]
async fn post_server(State(app): State<App>, Json(body): Json<ServerBody>) -> Result<Response> {
    let new = NewServer {
        hostname: hostname(&body.hostname)?,
        ip: address(&body.ip)?,
        group: group(body.group.unwrap_or_else(|| DEFAULT_GROUP.into()))?,
        labels: labels(body.labels.unwrap_or_default())?,
    };
    let server = app.hosts.add_server(&new).await?;
    Ok((StatusCode::CREATED, axum::Json(ServerView::new(server, Micros::now()))).into_response())
}

fn known(text: &str) -> Result<Hostname> {
    text.parse().map_err(|_| unknown_server())
}

/// One server, and why it works or doesn't.
#[utoipa::path(get, path = "/api/servers/{hostname}", tag = "servers", params(("hostname" = String, Path)),
    responses((status = 200, body = ServerDetail), (status = 404)))]
async fn get_server(State(app): State<App>, Path(host): Path<String>) -> Result<axum::Json<ServerDetail>> {
    let server = app.hosts.server(&known(&host)?).await?;
    let id: Option<AgentId> = server
        .row
        .agent_id
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|e| Error::Internal(format!("{e}")))?;
    let (mut agent, mut fingerprint, mut standing) = (None, None, None);
    if let Some(id) = &id {
        agent = app.hosts.beat(id).await?.map(agent_state).transpose()?;
        fingerprint = Some(app.hosts.agent(id).await?.known()?.key.id().to_string());
        standing = app.dispatch.standings(std::slice::from_ref(id)).await?.remove(id);
    }
    let claims = app.hosts.agents(Some(KeyStanding::Pending), "", HOSTS_PAGE_MAX as usize).await?;
    let mut pending = Vec::new();
    for row in claims.iter().filter(|row| row.hostname == server.row.hostname) {
        pending.push(row.known()?.key.id().to_string());
    }
    Ok(axum::Json(ServerDetail {
        created_at: Micros(server.row.created_at).rfc3339(),
        agent_id: id.map(Into::into),
        fingerprint,
        hold: standing.as_ref().map(|s| s.hold),
        hold_reason: standing.as_ref().map(|s| s.reason.clone()),
        cursor: standing.as_ref().map(|s| s.cursor),
        newest_keyring: app.keys.keyring()?.version(),
        pending,
        agent,
        server: ServerView::new(server, Micros::now()),
    }))
}

fn agent_state(row: super::store::BeatRow) -> Result<AgentState> {
    let json = |text: &str| serde_json::from_str(text).map_err(|e| Error::Internal(e.to_string()));
    Ok(AgentState {
        features: json(&row.features)?,
        refused: json(&row.refused)?,
        version: row.version,
        keyring: row.keyring,
        clock_offset_ms: row.clock_offset_ms,
        head: row.head,
        stopping: row.stopping != 0,
        busy: row.busy,
        narrowed: row.narrowed != 0,
        isolation: row.isolation,
        waiting: row.waiting,
        running: row.running,
        disk_usage: row.disk_usage,
        load: row.load_average,
        uptime: row.uptime,
        boot_id: row.boot_id,
    })
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
struct ServerChange {
    ip: Option<String>,
    group: Option<String>,
    /// Replaces all.
    labels: Option<BTreeMap<String, String>>,
}

/// Changes a server's address, group or labels; what is absent stays.
#[utoipa::path(patch, path = "/api/servers/{hostname}", tag = "servers", params(("hostname" = String, Path)),
    request_body = ServerChange, responses((status = 200, body = ServerView), (status = 400), (status = 404)))]
async fn patch_server(
    State(app): State<App>,
    Path(host): Path<String>,
    Json(body): Json<ServerChange>,
) -> Result<axum::Json<ServerView>> {
    let ip = body.ip.as_deref().map(address).transpose()?;
    let group = body.group.map(group).transpose()?;
    let labels = body.labels.map(labels).transpose()?;
    let server = app.hosts.change_server(&known(&host)?, ip, group, labels).await?;
    Ok(axum::Json(ServerView::new(server, Micros::now())))
}

/// Forgets a server: its key is revoked, its queue deleted, and what it was given ends.
#[utoipa::path(delete, path = "/api/servers/{hostname}", tag = "servers", params(("hostname" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_server(State(app): State<App>, Path(host): Path<String>) -> Result<StatusCode> {
    let host = known(&host)?;
    if let Some(agent) = app.hosts.delete_server(&app.dispatch, &host).await? {
        delete_queue(&app, agent).await;
    }
    tracing::info!(hostname = %host, "server deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// The key no longer counts, so that a queue that stays is only litter.
async fn delete_queue(app: &App, agent: AgentId) {
    if let Err(error) = app.bus.delete(&Queue::Agent(agent.clone())).await {
        tracing::warn!(%agent, %error, "the agent's queue was not deleted");
    }
}

/// A host's accepted key, as the document shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct KeyView {
    hostname: String,
    /// SPKI, 64 columns, no final newline.
    public_key_pem: String,
    created_at: String,
    updated_at: String,
}

impl From<HostKey> for KeyView {
    fn from(key: HostKey) -> Self {
        Self {
            hostname: key.row.hostname,
            public_key_pem: key.row.public_key,
            created_at: Micros(key.created_at).rfc3339(),
            updated_at: Micros(key.row.updated_at).rfc3339(),
        }
    }
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct KeyQuery {
    /// At most this many; 10,000 unless given.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
}

/// Accepted keys by hostname.
#[utoipa::path(get, path = "/api/client-keys", tag = "keys", params(KeyQuery),
    responses((status = 200, body = Vec<KeyView>)))]
async fn list_client_keys(
    State(app): State<App>,
    uri: Uri,
    Query(query): Query<KeyQuery>,
) -> Result<Response> {
    let limit = limit(query.limit)?;
    let mut keys = app.hosts.host_keys(&query.cursor.unwrap_or_default(), limit + 1).await?;
    let more = keys.len() > limit;
    keys.truncate(limit);
    let last = keys.last().map(|k| k.row.hostname.clone()).filter(|_| more);
    let views: Vec<KeyView> = keys.into_iter().map(KeyView::from).collect();
    let mut response = axum::Json(views).into_response();
    if let Some(last) = last {
        link_next(&mut response, &uri, &last);
    }
    Ok(response)
}

/// One host's accepted key.
#[utoipa::path(get, path = "/api/client-keys/{hostname}", tag = "keys", params(("hostname" = String, Path)),
    responses((status = 200, body = KeyView), (status = 404)))]
async fn get_client_key(State(app): State<App>, Path(host): Path<String>) -> Result<axum::Json<KeyView>> {
    let host = host.parse().map_err(|_| Error::NotFound("公钥不存在".into()))?;
    Ok(axum::Json(app.hosts.host_key(&host).await?.into()))
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
struct KeyBody {
    /// `BEGIN PUBLIC KEY` or `BEGIN RSA PUBLIC KEY`, RSA of at least 2,048 bits.
    public_key_pem: String,
}

/// Gives a host this key; the one before is replaced, an unknown host is made.
#[utoipa::path(put, path = "/api/client-keys/{hostname}", tag = "keys", params(("hostname" = String, Path)),
    request_body = KeyBody, responses((status = 200, body = KeyView), (status = 400), (status = 409)))]
async fn put_client_key(
    State(app): State<App>,
    Path(host): Path<String>,
    Json(body): Json<KeyBody>,
) -> Result<axum::Json<KeyView>> {
    let host = hostname(&host)?;
    let key = PublicKey::from_pem(&body.public_key_pem)
        .map_err(|_| Error::invalid("public_key_pem", texts::PUBLIC_KEY))?;
    Ok(axum::Json(app.hosts.put_host_key(&app.dispatch, &host, &key).await?.into()))
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct NonceView {
    /// Counts in one hello, within two minutes.
    nonce: String,
}

/// A nonce for one hello.
#[utoipa::path(get, path = "/api/agents/nonce", tag = "agents", security(()),
    responses((status = 200, body = NonceView)))]
async fn get_nonce(State(app): State<App>) -> Result<axum::Json<NonceView>> {
    Ok(axum::Json(NonceView { nonce: enrolment::nonce(&app).await? }))
}

/// The fleet's current signing key in PEM, for agents that are enrolled by hand.
#[utoipa::path(get, path = "/api/agents/controller-key", tag = "agents",
    responses((status = 200, content_type = "application/x-pem-file", body = String)))]
async fn get_controller_key(State(app): State<App>) -> Result<Response> {
    let pem = app.keys.keyring()?.current().to_pem();
    Ok(([(CONTENT_TYPE, "application/x-pem-file")], pem + "\n").into_response())
}

/// An agent introduces itself, signed with its own key; the answer is signed with the fleet's. Both are DSSE envelopes;
/// the header `signet-keyring` carries the keyring chain.
#[utoipa::path(post, path = "/api/agents/hello", tag = "agents", security(()),
    request_body(content = String, content_type = "application/json"),
    responses((status = 200), (status = 401), (status = 403), (status = 409)))]
async fn post_hello(State(app): State<App>, peer: Peer, Json(body): Json<DsseJson>) -> Result<Response> {
    let answer = enrolment::hello(&app, peer.ip, &body).await?;
    let headers = [(HeaderName::from_static(KEYRING_HEADER), answer.keyring)];
    Ok((headers, axum::Json(answer.welcome)).into_response())
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
    let limit = limit(query.limit)?;
    let parse = |text: &str| {
        let unknown =
            || Error::invalid("standing", "standing must be accepted, pending, replaced or revoked");
        KeyStanding::parse(text).ok_or_else(unknown)
    };
    let standing = query.standing.as_deref().map(parse).transpose()?;
    let mut rows = app.hosts.agents(standing, &query.cursor.unwrap_or_default(), limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().map(|r| r.agent_id.clone()).filter(|_| more);
    let views: Vec<AgentView> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
    let mut response = axum::Json(views).into_response();
    if let Some(last) = last {
        link_next(&mut response, &uri, &last);
    }
    Ok(response)
}

fn agent_id(text: &str) -> Result<AgentId> {
    text.parse().map_err(|_| Error::NotFound("Agent not found".into()))
}

/// Accepts a pending key after its fingerprint was compared, or a host that was set aside.
#[utoipa::path(post, path = "/api/agents/{agent_id}/accept", tag = "agents", params(("agent_id" = String, Path)),
    responses((status = 200, body = AgentView), (status = 404), (status = 409)))]
async fn accept_agent(State(app): State<App>, Path(id): Path<String>) -> Result<axum::Json<AgentView>> {
    let id = agent_id(&id)?;
    app.hosts.accept(&app.dispatch, &id).await?;
    tracing::warn!(agent = %id, "agent accepted");
    Ok(axum::Json(app.hosts.agent(&id).await?.try_into()?))
}

/// Revokes a key: nothing it says counts any more.
#[utoipa::path(post, path = "/api/agents/{agent_id}/revoke", tag = "agents", params(("agent_id" = String, Path)),
    responses((status = 200, body = AgentView), (status = 404)))]
async fn revoke_agent(State(app): State<App>, Path(id): Path<String>) -> Result<axum::Json<AgentView>> {
    let id = agent_id(&id)?;
    app.hosts.revoke(&app.dispatch, &id).await?;
    delete_queue(&app, id.clone()).await;
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

/// What an agent reported about messages that this database does not know, as after a restore.
#[utoipa::path(get, path = "/api/agents/{agent_id}/orphans", tag = "agents", params(("agent_id" = String, Path)),
    responses((status = 200, body = Vec<OrphanView>), (status = 404)))]
async fn get_orphans(State(app): State<App>, Path(id): Path<String>) -> Result<axum::Json<Vec<OrphanView>>> {
    let id = agent_id(&id)?;
    app.hosts.agent(&id).await?;
    let mut views = Vec::new();
    for row in app.dispatch.orphans(&id, HOSTS_PAGE_MAX as usize).await? {
        let event = serde_json::from_slice(&row.event).map_err(|e| Error::Internal(e.to_string()))?;
        let received_at = Micros(row.received_at).rfc3339();
        views.push(OrphanView { log_id: row.log_id, seq: row.seq, received_at, event });
    }
    Ok(axum::Json(views))
}
