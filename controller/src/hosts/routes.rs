//! HTTP in, HTTP out: servers, and their keys as the document has them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use signet_common::bus::{Health, Queue};
use signet_common::limits::DEPLOY_STANDINGS_MAX;
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, PublicKey};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deployments::DeploymentFilter;
use super::service::{DEFAULT_GROUP, HostKey, NewServer, Server, group_name, unknown_server};
use super::store::{AgentRow, ServerFilter};
use super::{agents, fleet_key, join_tokens};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::dialect::texts;
use crate::http::extract::{Author, Json, Path, Query};
use crate::http::list::{listed, page, page_limit};
use crate::limits::{
    DEPTH_SECONDS_MAX, HOSTS_PAGE_MAX, LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX,
    LIST_CHUNK_ROWS,
};

/// The slice's routes.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_servers, post_server))
        .routes(routes!(get_server, patch_server, delete_server))
        .routes(routes!(list_client_keys))
        .routes(routes!(get_client_key, put_client_key))
        .merge(agents::routes())
        .merge(fleet_key::routes())
        .merge(join_tokens::routes())
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
    /// A policy file narrows what runs there; absent when none does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    narrowed: bool,
    /// Nothing is sent there until an admin accepts it; absent when it isn't so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    set_aside: bool,
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
            narrowed: server.row.narrowed.is_some_and(|n| n != 0),
            set_aside: server.set_aside,
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
    /// What its journal lost before it was taken in; null when nothing.
    gaps: Option<GapsView>,
    /// Its queue at the broker; null without an agent.
    queue: Option<QueueView>,
    /// With whom its agent connects to the broker: `own` or `shared`; null when there is no broker.
    broker_user: Option<&'static str>,
    /// What its newest heartbeat says; null before the first.
    agent: Option<AgentState>,
    /// Deployed paths that are not what was deployed; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    drifted: Vec<String>,
}

/// Events that are gone for good: nobody knows what became of what they told.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct GapsView {
    /// How many.
    events: i64,
    /// When the host last said so.
    last_at: String,
}

/// A queue as the broker sees it.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct QueueView {
    /// `there`, `missing`, or `unknown` while the broker does not say
    state: &'static str,
    /// Messages that wait in it.
    waiting: u64,
}

/// Asks the broker, for a bounded time: this page must show the rest when the broker is away.
async fn queue(app: &App, agent: &AgentId) -> QueueView {
    if *app.bus.health().borrow() == Health::Down {
        return QueueView { state: "unknown", waiting: 0 };
    }
    let queue = Queue::Agent(agent.clone());
    let asked = tokio::time::timeout(Duration::from_secs(DEPTH_SECONDS_MAX), app.bus.depth(&queue)).await;
    let (state, waiting) = match asked {
        Ok(Ok(Some(waiting))) => ("there", waiting),
        Ok(Ok(None)) => ("missing", 0),
        Ok(Err(_)) | Err(_) => ("unknown", 0),
    };
    QueueView { state, waiting }
}

/// Whether agents have users of their own at the broker.
fn broker_user(app: &App) -> Option<&'static str> {
    app.settings.bus.agents_url().map(|_| if app.broker_users.is_some() { "own" } else { "shared" })
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

pub(super) fn hosts_limit(asked: Option<u32>) -> Result<usize> {
    page_limit(asked, HOSTS_PAGE_MAX, HOSTS_PAGE_MAX)
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

/// Servers by name.
#[utoipa::path(get, path = "/api/servers", tag = "servers", params(ServerQuery),
    responses((status = 200, body = Vec<ServerView>)))]
async fn list_servers(
    State(app): State<App>,
    uri: Uri,
    Query(query): Query<ServerQuery>,
) -> Result<Response> {
    let limit = hosts_limit(query.limit)?;
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
        let some = app.hosts.servers(&app.dispatch, &filter, &after, LIST_CHUNK_ROWS).await?;
        more = some.len() == LIST_CHUNK_ROWS;
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
    Ok(listed(&views, &uri, Some(after.as_str()).filter(|_| more)))
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
    group_name(&text).map(|()| text)
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
async fn post_server(State(app): State<App>, by: Author, Json(body): Json<ServerBody>) -> Result<Response> {
    let new = NewServer {
        hostname: hostname(&body.hostname)?,
        ip: address(&body.ip)?,
        group: group(body.group.unwrap_or_else(|| DEFAULT_GROUP.into()))?,
        labels: labels(body.labels.unwrap_or_default())?,
    };
    let server = app.hosts.add_server(&by, &app.dispatch, &new).await?;
    Ok((StatusCode::CREATED, axum::Json(ServerView::new(server, Micros::now()))).into_response())
}

fn known(text: &str) -> Result<Hostname> {
    text.parse().map_err(|_| unknown_server())
}

/// One server, and why it works or doesn't.
#[utoipa::path(get, path = "/api/servers/{hostname}", tag = "servers", params(("hostname" = String, Path)),
    responses((status = 200, body = ServerDetail), (status = 404)))]
async fn get_server(State(app): State<App>, Path(host): Path<String>) -> Result<axum::Json<ServerDetail>> {
    let host = known(&host)?;
    let server = app.hosts.server(&app.dispatch, &host).await?;
    let id: Option<AgentId> = server
        .row
        .agent_id
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|e| Error::Internal(format!("{e}")))?;
    let (mut agent, mut fingerprint, mut standing, mut waits, mut gaps) = (None, None, None, None, None);
    if let Some(id) = &id {
        waits = Some(queue(&app, id).await);
        gaps = app.dispatch.gaps(id).await?;
        agent = app.hosts.beat(id).await?.map(agent_state).transpose()?;
        fingerprint = Some(app.hosts.agent(id).await?.known()?.key.id().to_string());
        standing = app.dispatch.standings(std::slice::from_ref(id)).await?.remove(id);
    }
    let filter =
        DeploymentFilter { hostname: Some(host.to_string()), drifted: Some(true), ..Default::default() };
    let drifted = app.hosts.deployments(&filter, ("", ""), DEPLOY_STANDINGS_MAX).await?;
    let claims = app.hosts.claims(&host).await?;
    let fingerprint_of = |row: &AgentRow| Ok(row.known()?.key.id().to_string());
    let pending = claims.iter().map(fingerprint_of).collect::<Result<_>>()?;
    Ok(axum::Json(ServerDetail {
        created_at: Micros(server.row.created_at).rfc3339(),
        agent_id: id.map(Into::into),
        fingerprint,
        hold: standing.as_ref().map(|s| s.hold),
        hold_reason: standing.as_ref().map(|s| s.reason.clone()),
        cursor: standing.as_ref().map(|s| s.cursor),
        newest_keyring: app.keys.newest(&app.store).await?.version(),
        pending,
        gaps: gaps.map(|(events, at)| GapsView { events, last_at: at.rfc3339() }),
        queue: waits,
        broker_user: broker_user(&app),
        agent,
        drifted: drifted.into_iter().map(|one| one.path).collect(),
        server: ServerView::new(server, Micros::now()),
    }))
}

fn agent_state(row: super::beat_store::BeatRow) -> Result<AgentState> {
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
    by: Author,
    Path(host): Path<String>,
    Json(body): Json<ServerChange>,
) -> Result<axum::Json<ServerView>> {
    let ip = body.ip.as_deref().map(address).transpose()?;
    let group = body.group.map(group).transpose()?;
    let labels = body.labels.map(labels).transpose()?;
    let server = app.hosts.change_server(&by, &app.dispatch, &known(&host)?, ip, group, labels).await?;
    Ok(axum::Json(ServerView::new(server, Micros::now())))
}

/// Forgets a server: its key is revoked, its queue deleted, and what it was given ends.
#[utoipa::path(delete, path = "/api/servers/{hostname}", tag = "servers", params(("hostname" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_server(State(app): State<App>, by: Author, Path(host): Path<String>) -> Result<StatusCode> {
    let host = known(&host)?;
    if let Some(agent) = app.hosts.delete_server(&by, &app.dispatch, &host).await? {
        forget_at_broker(&app, agent).await;
    }
    tracing::info!(hostname = %host, "server deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes what the broker has of an agent: its user, which ends its connections, and its queue. The key no longer counts,
/// so that a queue that stays is only litter.
pub(super) async fn forget_at_broker(app: &App, agent: AgentId) {
    super::broker_users::forget(app, &agent).await;
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
    let limit = hosts_limit(query.limit)?;
    let keys = app.hosts.host_keys(&query.cursor.unwrap_or_default(), limit + 1).await?;
    let (keys, next) = page(keys, limit, |key| key.row.hostname.clone());
    let views: Vec<KeyView> = keys.into_iter().map(KeyView::from).collect();
    Ok(listed(&views, &uri, next.as_deref()))
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
    by: Author,
    Path(host): Path<String>,
    Json(body): Json<KeyBody>,
) -> Result<axum::Json<KeyView>> {
    let host = hostname(&host)?;
    let key = PublicKey::from_pem(&body.public_key_pem)
        .map_err(|_| Error::invalid("public_key_pem", texts::PUBLIC_KEY))?;
    Ok(axum::Json(app.hosts.put_host_key(&by, &app.dispatch, &host, &key).await?.into()))
}
