//! HTTP in, HTTP out, of what no document has: the console's log-in, tokens for programs, tickets for streams.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use signet_common::time::Micros;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::api_tokens::Asked;
use super::login::{Form, LoggedIn};
use super::model::{Caller, Role, Scope, Via};
use super::pipelines::LoginBody;
use super::store::ShownToken;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::{SESSION_COOKIE, bearer, guard_origin};
use crate::http::extract::{Author, Json, Path, Peer, Query, moment};
use crate::http::known::Exact;
use crate::http::list::{listed, page, page_limit};
use crate::limits::{API_TOKENS_MAX, TICKET_SECONDS};
use crate::settings::Secret;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(post_session, delete_session))
        .routes(routes!(post_ticket))
        .routes(routes!(list_tokens, post_token))
        .routes(routes!(delete_token))
}

#[derive(Serialize, ToSchema)]
struct SessionView {
    username: String,
    role: Role,
    /// Seconds in which the cookie counts.
    expires_in: i64,
}

/// The cookie: not for scripts, not from other sites, and over TLS only where this controller is reached so.
fn cookie(app: &App, value: &str, seconds: i64) -> String {
    let secure = app.settings.tls.is_some()
        || app.settings.public_url.as_ref().is_some_and(|url| url.starts_with("https://"));
    let secure = if secure { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Logs in; a failure is noted under the account's name, if there is such an account: people type passwords there too.
pub(super) async fn log_in(
    app: &App,
    by: &Author,
    peer: Peer,
    body: LoginBody,
    form: Form,
) -> Result<LoggedIn> {
    let done = app.accounts.log_in(by, &body.username, &Secret::new(body.password), peer.ip, form).await;
    if let Err(why @ (Error::Unauthenticated | Error::TooManyRequests(_))) = &done {
        let (app, by, why) = (app.clone(), by.clone(), why.clone());
        // Beside the answer, so that its time does not tell whether there is such an account.
        tokio::spawn(async move { app.accounts.failed(&app.audit, &by, &body.username, &why).await });
    }
    done
}

/// Logs a browser in: the answer sets the console's cookie.
#[utoipa::path(post, path = "/api/session", tag = "accounts", security(()), request_body = LoginBody,
    responses((status = 200, body = SessionView), (status = 400), (status = 401), (status = 403), (status = 429)))]
async fn post_session(
    State(app): State<App>,
    by: Author,
    peer: Peer,
    headers: HeaderMap,
    Json(body): Json<LoginBody>,
) -> Result<Response> {
    // Else another site could log a browser in under an account of its own.
    guard_origin(&headers)?;
    let done = log_in(&app, &by, peer, body, Form::Cookie).await?;
    let cookie = cookie(&app, done.token.reveal(), done.expires_in);
    let view =
        SessionView { username: done.user.username, role: done.user.role, expires_in: done.expires_in };
    Ok(([(SET_COOKIE, cookie)], axum::Json(view)).into_response())
}

/// Ends the log-in, and takes the cookie away.
#[utoipa::path(delete, path = "/api/session", tag = "accounts", responses((status = 204)))]
async fn delete_session(State(app): State<App>, caller: Caller, by: Author) -> Result<Response> {
    if let Via::Session(sid) = caller.via {
        app.accounts.ended(&by, &sid).await?;
    }
    Ok(([(SET_COOKIE, cookie(&app, "", 0))], StatusCode::NO_CONTENT).into_response())
}

#[derive(Serialize, ToSchema)]
struct TicketView {
    /// For `?ticket=` of one stream.
    ticket: String,
    /// Seconds.
    expires_in: i64,
}

/// A ticket for one stream, because browsers send no header with one. It has the caller's rights.
#[utoipa::path(post, path = "/api/tickets", tag = "accounts", responses((status = 201, body = TicketView)))]
async fn post_ticket(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    headers: HeaderMap,
) -> Result<Response> {
    let ticket = app.accounts.ticket(&by, &caller, bearer(&headers)).await?;
    Ok((StatusCode::CREATED, axum::Json(TicketView { ticket, expires_in: TICKET_SECONDS })).into_response())
}

/// A token without its text.
#[derive(Serialize, ToSchema)]
struct TokenView {
    id: String,
    name: String,
    /// The account whose rights it lends.
    username: String,
    role: String,
    scope: Scope,
    created_at: String,
    expires_at: Option<String>,
    /// To the minute; null if never.
    last_used_at: Option<String>,
}

impl TryFrom<ShownToken> for TokenView {
    type Error = Error;
    fn try_from(token: ShownToken) -> Result<Self> {
        let time = |at: Option<i64>| at.map(|at| Micros(at).rfc3339());
        Ok(Self {
            scope: token.scope()?,
            id: token.id,
            name: token.name,
            username: token.username,
            role: token.role,
            created_at: Micros(token.created_at).rfc3339(),
            expires_at: time(token.expires_at),
            last_used_at: time(token.last_used_at),
        })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TokenQuery {
    /// At most this many; 1,000 unless given, and at most.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
}

/// API tokens, newest first: one's own, an admin's view of all.
#[utoipa::path(get, path = "/api/tokens", tag = "accounts", params(TokenQuery),
    responses((status = 200, body = Vec<TokenView>), (status = 400)))]
async fn list_tokens(
    State(app): State<App>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<TokenQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit, API_TOKENS_MAX, API_TOKENS_MAX)?;
    let malformed = || Error::invalid("cursor", "cursor is malformed");
    let before = query.cursor.map(|text| Uuid::try_parse(&text).map_err(|_| malformed())).transpose()?;
    let tokens = app.accounts.list_tokens(&caller, before, limit + 1).await?;
    let (tokens, next) = page(tokens, limit, |token| token.id.clone());
    let views = tokens.into_iter().map(TokenView::try_from).collect::<Result<Vec<_>>>()?;
    Ok(listed(&views, &uri, next.as_deref()))
}

#[derive(Deserialize, ToSchema)]
struct TokenBody {
    name: String,
    /// At most the account's own; `viewer` unless given.
    role: Option<String>,
    /// `fleet`, `jobs`, `pipelines`, `releases`, `clusters`; absent = all. With `repositories`: `["jobs"]`.
    surfaces: Option<BTreeSet<String>>,
    /// Groups of hosts that it may make do something; absent = all.
    groups: Option<BTreeSet<String>>,
    /// Repositories that it may deploy, and nothing else; absent = all.
    repositories: Option<BTreeSet<String>>,
    /// With `repositories`: whether its deployments may bring `build`, `activate`, a health command, `filters` and `user`.
    #[serde(default)]
    hooks: bool,
    /// With `repositories`: the directories to which, or below which, it may deploy them; absent = all.
    paths: Option<BTreeSet<String>>,
    /// Networks or addresses from which it counts; absent = all.
    networks: Option<Vec<String>>,
    /// RFC 3339; absent = never.
    expires_at: Option<String>,
}

impl TokenBody {
    fn asked(self) -> Result<Asked> {
        let network = |text: String| -> Result<IpNet> {
            let single = text.parse::<std::net::IpAddr>().map(IpNet::from);
            single.or_else(|_| text.parse()).map_err(|_| {
                Error::invalid(
                    "networks",
                    format!("'{}' is neither an address nor a network", text.escape_debug()),
                )
            })
        };
        let role = self.role.as_deref().unwrap_or(Role::Viewer.as_str());
        let role = Role::parse(role)
            .ok_or_else(|| Error::invalid("role", "role must be admin, operator, viewer or user"))?;
        let networks =
            self.networks.map(|all| all.into_iter().map(network).collect::<Result<_>>()).transpose()?;
        let scope = Scope {
            surfaces: self.surfaces,
            groups: self.groups,
            repositories: self.repositories,
            hooks: self.hooks,
            paths: self.paths,
            networks,
        };
        let expires_at = moment("expires_at", self.expires_at.as_deref())?;
        Ok(Asked { name: self.name, role, scope, expires_at })
    }
}

#[derive(Serialize, ToSchema)]
struct NewTokenView {
    #[schema(value_type = String)]
    id: Uuid,
    /// Shown this once.
    token: String,
    name: String,
    /// What was granted.
    role: Role,
    scope: Scope,
    /// Null if never.
    expires_at: Option<String>,
}

/// Makes an API token of the caller's account.
#[utoipa::path(post, path = "/api/tokens", tag = "accounts", request_body = TokenBody,
    responses((status = 201, body = NewTokenView), (status = 400), (status = 403), (status = 409)))]
async fn post_token(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Exact(body): Exact<TokenBody>,
) -> Result<Response> {
    let asked = body.asked()?;
    let (id, token) = app.accounts.make_token(&by, &caller, &asked).await?;
    tracing::info!(%id, name = asked.name, by = %caller, "API token made");
    let view = NewTokenView {
        id,
        token: token.reveal().to_owned(),
        name: asked.name,
        role: asked.role,
        scope: asked.scope,
        expires_at: asked.expires_at.map(Micros::rfc3339),
    };
    Ok((StatusCode::CREATED, axum::Json(view)).into_response())
}

/// Deletes an API token: one's own, or as an admin any.
#[utoipa::path(delete, path = "/api/tokens/{id}", tag = "accounts", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_token(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Path(text): Path<String>,
) -> Result<StatusCode> {
    let id = Uuid::try_parse(&text).map_err(|_| Error::NotFound("Token not found".into()))?;
    app.accounts.delete_token(&by, &caller, &id).await?;
    tracing::info!(%id, by = %caller, "API token deleted");
    Ok(StatusCode::NO_CONTENT)
}
