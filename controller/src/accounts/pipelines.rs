//! HTTP in, HTTP out, as document 001 has it: an access and a refresh token, integer ids.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::login::{Form, LoggedIn};
use super::model::{Caller, Email, User, Via};
use super::routes::log_in;
use super::service::Change;
use super::store::UserFilter;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::dialect::texts;
use crate::http::extract::{Author, Json, Peer, Query, given};
use crate::http::paging::{NumberedPage, base_url};
use crate::limits::SEARCH_CHARS_MAX;
use crate::settings::Secret;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(me, patch_me))
        .routes(routes!(post_password))
        .routes(routes!(list_users))
}

/// A name and its password.
#[derive(Deserialize, ToSchema)]
pub(super) struct LoginBody {
    pub(super) username: String,
    pub(super) password: String,
}

/// The account in a log-in's answer.
#[derive(Serialize, ToSchema)]
struct Brief {
    id: i64,
    username: String,
    email: String,
}

#[derive(Serialize, ToSchema)]
struct LoginView {
    /// For requests; an hour.
    access: String,
    /// For the next pair, once; the log-in lasts seven days.
    refresh: String,
    user: Brief,
}

/// Both tokens of a pair.
fn pair(done: &LoggedIn) -> Result<(String, String)> {
    let refresh =
        done.refresh.as_ref().ok_or_else(|| Error::Internal("a pair without a refresh token".into()))?;
    Ok((done.token.reveal().to_owned(), refresh.reveal().to_owned()))
}

/// Logs in.
#[utoipa::path(post, path = "/api/auth/login", tag = "accounts", security(()), request_body = LoginBody,
    responses((status = 200, body = LoginView), (status = 400), (status = 401), (status = 429)))]
async fn login(
    State(app): State<App>,
    by: Author,
    peer: Peer,
    Json(body): Json<LoginBody>,
) -> Result<axum::Json<LoginView>> {
    given("username", &body.username)?;
    given("password", &body.password)?;
    let done = log_in(&app, &by, peer, body, Form::Pair).await?;
    let (access, refresh) = pair(&done)?;
    let user = Brief { id: done.user.id, username: done.user.username, email: done.user.email };
    Ok(axum::Json(LoginView { access, refresh, user }))
}

#[derive(Deserialize, ToSchema)]
struct RefreshBody {
    refresh: String,
}

#[derive(Serialize, ToSchema)]
struct PairView {
    access: String,
    refresh: String,
}

/// The next pair for a refresh token, once.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "accounts", security(()), request_body = RefreshBody,
    responses((status = 200, body = PairView), (status = 400), (status = 401)))]
async fn refresh(
    State(app): State<App>,
    by: Author,
    Json(body): Json<RefreshBody>,
) -> Result<axum::Json<PairView>> {
    let done = app.accounts.refresh(&by, &body.refresh, Form::Pair).await?;
    let (access, refresh) = pair(&done)?;
    Ok(axum::Json(PairView { access, refresh }))
}

/// Ends the log-in, with all its tokens.
#[utoipa::path(post, path = "/api/auth/logout", tag = "accounts", responses((status = 204)))]
async fn logout(State(app): State<App>, caller: Caller, by: Author) -> Result<StatusCode> {
    if let Via::Session(sid) = caller.via {
        app.accounts.ended(&by, &sid).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// An account: the document's seven fields first.
#[derive(Serialize, ToSchema)]
struct Me {
    id: i64,
    username: String,
    email: String,
    first_name: String,
    last_name: String,
    is_active: bool,
    date_joined: String,
    role: super::model::Role,
}

impl From<User> for Me {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            username: user.username,
            email: user.email,
            first_name: user.first_name,
            last_name: user.last_name,
            is_active: user.is_active,
            date_joined: user.created_at.rfc3339(),
            role: user.role,
        }
    }
}

/// The caller's own account.
#[utoipa::path(get, path = "/api/users/me", tag = "accounts",
    responses((status = 200, body = Me), (status = 404)))]
async fn me(State(app): State<App>, caller: Caller) -> Result<axum::Json<Me>> {
    Ok(axum::Json(app.accounts.own(&caller).await?.into()))
}

#[derive(Deserialize, ToSchema)]
struct PatchBody {
    /// `""` for none.
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
}

/// A mail address, or none for an empty text; `why` is what the surface says of one that is none.
pub(super) fn email(text: Option<&String>, why: &str) -> Result<Option<Option<Email>>> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(None));
    }
    text.parse().map(|email| Some(Some(email))).map_err(|_| Error::invalid("email", why))
}

/// Changes the caller's own profile.
#[utoipa::path(patch, path = "/api/users/me", tag = "accounts", request_body = PatchBody,
    responses((status = 200, body = Me), (status = 400), (status = 409)))]
async fn patch_me(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Json(body): Json<PatchBody>,
) -> Result<axum::Json<Me>> {
    let change = Change {
        email: email(body.email.as_ref(), texts::EMAIL)?,
        first_name: body.first_name,
        last_name: body.last_name,
        ..Change::default()
    };
    let own = app.accounts.own(&caller).await?;
    Ok(axum::Json(app.accounts.change(&by, &caller, &own.uuid, &change).await?.into()))
}

#[derive(Deserialize, ToSchema)]
pub(super) struct PasswordBody {
    pub(super) old_password: Option<String>,
    pub(super) new_password: String,
}

/// Changes the caller's own password; every other log-in of the account ends.
#[utoipa::path(post, path = "/api/users/me/password", tag = "accounts", request_body = PasswordBody,
    responses((status = 204), (status = 400), (status = 422)))]
async fn post_password(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Json(body): Json<PasswordBody>,
) -> Result<StatusCode> {
    let own = app.accounts.own(&caller).await?;
    let (old, new) = (body.old_password.map(Secret::new), Secret::new(body.new_password));
    app.accounts.change_password(&by, &caller, &own, old.as_ref(), &new).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// From 1.
    page: Option<String>,
    /// 20 unless given, 100 at most.
    page_size: Option<String>,
    /// Part of a name or mail address.
    search: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct UserPage {
    count: u64,
    next: Option<String>,
    previous: Option<String>,
    results: Vec<Me>,
}

/// Accounts, newest first.
#[utoipa::path(get, path = "/api/users", tag = "accounts", params(ListQuery),
    responses((status = 200, body = UserPage), (status = 404)))]
async fn list_users(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let page = NumberedPage::pipelines(query.page.as_deref(), query.page_size.as_deref())?;
    let filter = UserFilter { role: None, search: search(query.search)? };
    let (users, count) = app.accounts.list(&filter, page.size, page.offset()).await?;
    let base = base_url(&app, &headers);
    page.answer(&base, &uri, count, users.into_iter().map(Me::from).collect::<Vec<_>>())
}

/// A text to search for; an empty one searches for nothing.
pub(super) fn search(text: Option<String>) -> Result<Option<String>> {
    match text.filter(|text| !text.is_empty()) {
        Some(text) if text.chars().count() > SEARCH_CHARS_MAX => {
            Err(Error::invalid("search", format!("search must have at most {SEARCH_CHARS_MAX} characters")))
        }
        text => Ok(text),
    }
}
