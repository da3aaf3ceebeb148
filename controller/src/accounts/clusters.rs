//! HTTP in, HTTP out, as document 003 has it: one token, UUIDs, every answer in an envelope.

use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::json;
use signet_common::ids::is_group_name;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::api_tokens::names;
use super::login::{Form, LoggedIn};
use super::model::{Caller, Email, Role, User, Username, Via};
use super::pipelines::{LoginBody, PasswordBody, email, search};
use super::routes::log_in;
use super::service::{Change, NewUser};
use super::store::UserFilter;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::dialect::success;
use crate::http::extract::{Author, Json, Path, Peer, Query, given};
use crate::http::paging::NumberedPage;
use crate::settings::Secret;

/// What this surface says of a text that is no mail address.
const NO_EMAIL: &str = "email is not a mail address";

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(register))
        .routes(routes!(refresh))
        .routes(routes!(profile))
        .routes(routes!(logout))
        .routes(routes!(development_token))
        .routes(routes!(list_users))
        .routes(routes!(get_user, put_user, delete_user))
        .routes(routes!(put_password))
}

/// The account in most answers.
#[derive(Serialize, ToSchema)]
struct Profile {
    #[schema(value_type = String)]
    id: Uuid,
    username: String,
    email: String,
    role: Role,
}

impl From<&User> for Profile {
    fn from(user: &User) -> Self {
        Self { id: user.uuid, username: user.username.clone(), email: user.email.clone(), role: user.role }
    }
}

#[derive(Serialize, ToSchema)]
struct LoginView {
    token: String,
    /// Seconds.
    expires_in: i64,
    user: Profile,
}

fn logged_in(done: &LoggedIn) -> Response {
    let user = Profile::from(&done.user);
    let view = LoginView { token: done.token.reveal().to_owned(), expires_in: done.expires_in, user };
    success(StatusCode::OK, &view)
}

/// Logs in.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "accounts", security(()), request_body = LoginBody,
    responses((status = 200, body = LoginView), (status = 400), (status = 401), (status = 429)))]
async fn login(
    State(app): State<App>,
    by: Author,
    peer: Peer,
    Json(body): Json<LoginBody>,
) -> Result<Response> {
    given("username", &body.username)?;
    given("password", &body.password)?;
    Ok(logged_in(&log_in(&app, &by, peer, body, Form::Single).await?))
}

/// A `role` in the body is not read: whoever registers is a `user`.
#[derive(Deserialize, ToSchema)]
struct RegisterBody {
    username: String,
    email: String,
    password: String,
}

#[derive(Serialize, ToSchema)]
struct Registered {
    #[serde(flatten)]
    user: Profile,
    created_at: String,
}

/// Makes an account with the role `user`, where registration is open.
#[utoipa::path(post, path = "/api/v1/auth/register", tag = "accounts", security(()), request_body = RegisterBody,
    responses((status = 201, body = Registered), (status = 400), (status = 403), (status = 409), (status = 422)))]
async fn register(State(app): State<App>, by: Author, Json(body): Json<RegisterBody>) -> Result<Response> {
    if !app.settings.registration_open() {
        return Err(Error::Forbidden("registration is closed; ask an admin for an account".into()));
    }
    given("username", &body.username)?;
    given("email", &body.email)?;
    given("password", &body.password)?;
    let username: Username = body.username.parse().map_err(|why: &str| Error::invalid("username", why))?;
    let email: Email = body.email.parse().map_err(|_| Error::invalid("email", NO_EMAIL))?;
    let password = Secret::new(body.password);
    let new = NewUser { username, email: Some(email), password, role: Role::User };
    let user = app.accounts.create(&by, &new).await?;
    tracing::info!(username = user.username, "registered");
    let view = Registered { created_at: user.created_at.rfc3339(), user: Profile::from(&user) };
    Ok(success(StatusCode::CREATED, &view))
}

#[derive(Deserialize, ToSchema)]
struct RefreshBody {
    token: String,
}

/// The next token for one that still counts, once.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "accounts", security(()), request_body = RefreshBody,
    responses((status = 200, body = LoginView), (status = 400), (status = 401)))]
async fn refresh(State(app): State<App>, by: Author, Json(body): Json<RefreshBody>) -> Result<Response> {
    Ok(logged_in(&app.accounts.refresh(&by, &body.token, Form::Single).await?))
}

/// The caller's own account.
#[utoipa::path(get, path = "/api/v1/auth/profile", tag = "accounts",
    responses((status = 200, body = Profile), (status = 404)))]
async fn profile(State(app): State<App>, caller: Caller) -> Result<Response> {
    Ok(success(StatusCode::OK, &Profile::from(&app.accounts.own(&caller).await?)))
}

/// Ends the log-in, with all its tokens.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "accounts", responses((status = 200)))]
async fn logout(State(app): State<App>, caller: Caller, by: Author) -> Result<Response> {
    if let Via::Session(sid) = caller.via {
        app.accounts.ended(&by, &sid).await?;
    }
    Ok(success(StatusCode::OK, &json!({ "message": "Logged out" })))
}

/// A token of a `user`, without a credential; only with the development flag, and only from this machine.
#[utoipa::path(get, path = "/api/v1/auth/token", tag = "accounts", security(()),
    responses((status = 200), (status = 404)))]
async fn development_token(State(app): State<App>, by: Author, peer: Peer) -> Result<Response> {
    if !app.settings.development_token || !peer.loopback {
        return Err(Error::NotFound("Not Found".into()));
    }
    let done = app.accounts.development_token(&by, peer.ip).await?;
    Ok(success(StatusCode::OK, &json!({ "token": done.token.reveal() })))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// From 1.
    page: Option<String>,
    /// 20 unless given, 100 at most.
    limit: Option<String>,
    /// Only this role's.
    role: Option<String>,
    /// Part of a name or mail address.
    search: Option<String>,
}

fn role(text: Option<&String>) -> Result<Option<Role>> {
    let unknown = || Error::invalid("role", "role must be admin, operator, viewer or user");
    text.map(|text| Role::parse(text).ok_or_else(unknown)).transpose()
}

#[derive(Serialize, ToSchema)]
struct Listed {
    #[serde(flatten)]
    user: Profile,
    created_at: String,
    last_login_at: Option<String>,
    is_active: bool,
}

#[derive(Serialize, ToSchema)]
struct UserPage {
    users: Vec<Listed>,
    total: u64,
    page: usize,
    limit: usize,
}

/// Accounts, newest first.
#[utoipa::path(get, path = "/api/v1/users", tag = "accounts", params(ListQuery),
    responses((status = 200, body = UserPage), (status = 400)))]
async fn list_users(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Response> {
    let page = NumberedPage::clusters(query.page.as_deref(), query.limit.as_deref())?;
    let filter = UserFilter { role: role(query.role.as_ref())?, search: search(query.search)? };
    let (users, total) = app.accounts.list(&filter, page.size, page.offset()).await?;
    let listed = |user: User| Listed {
        user: Profile::from(&user),
        created_at: user.created_at.rfc3339(),
        last_login_at: user.last_login_at.map(|at| at.rfc3339()),
        is_active: user.is_active,
    };
    let users = users.into_iter().map(listed).collect();
    Ok(success(StatusCode::OK, &UserPage { users, total, page: page.number, limit: page.size }))
}

fn id(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::invalid("id", "id must be a UUID"))
}

/// Whose account a path names: the caller's own, or for an admin any. Others learn nothing of whether there is one. As an
/// argument it stands before the body, because who has no right is told so first.
struct Whose(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Whose {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let Path(text) = Path::<String>::from_request_parts(parts, state).await?;
        let uuid = id(&text)?;
        if caller.role != Role::Admin && caller.user.map(|(_, own)| own) != Some(uuid) {
            return Err(Error::Forbidden("only an admin may do that for others".into()));
        }
        Ok(Self(uuid))
    }
}

#[derive(Serialize, ToSchema)]
struct Detail {
    #[serde(flatten)]
    user: Profile,
    created_at: String,
    updated_at: String,
    last_login_at: Option<String>,
    is_active: bool,
    /// The groups of hosts that it may make do something; null = all.
    host_groups: Option<std::collections::BTreeSet<String>>,
}

/// One account, for an admin or its owner.
#[utoipa::path(get, path = "/api/v1/users/{id}", tag = "accounts", params(("id" = String, Path)),
    responses((status = 200, body = Detail), (status = 403), (status = 404)))]
async fn get_user(State(app): State<App>, Whose(uuid): Whose) -> Result<Response> {
    let user = app.accounts.by_uuid(&uuid).await?;
    let detail = Detail {
        user: Profile::from(&user),
        created_at: user.created_at.rfc3339(),
        updated_at: user.updated_at.rfc3339(),
        last_login_at: user.last_login_at.map(|at| at.rfc3339()),
        is_active: user.is_active,
        host_groups: user.host_groups,
    };
    Ok(success(StatusCode::OK, &detail))
}

#[derive(Deserialize, ToSchema)]
struct PutBody {
    /// `""` for none.
    email: Option<String>,
    role: Option<String>,
    /// `false` disables the account at once.
    is_active: Option<bool>,
    /// The groups of hosts that it may make do something; an empty list = all.
    host_groups: Option<std::collections::BTreeSet<String>>,
}

#[derive(Serialize, ToSchema)]
struct Updated {
    #[serde(flatten)]
    user: Profile,
    updated_at: String,
    is_active: bool,
}

/// Changes an account: its owner the address, an admin everything. What is absent stays.
#[utoipa::path(put, path = "/api/v1/users/{id}", tag = "accounts", params(("id" = String, Path)),
    request_body = PutBody,
    responses((status = 200, body = Updated), (status = 400), (status = 403), (status = 404), (status = 409)))]
async fn put_user(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Whose(uuid): Whose,
    Json(body): Json<PutBody>,
) -> Result<Response> {
    if let Some(groups) = body.host_groups.as_ref().filter(|groups| !groups.is_empty()) {
        names("host_groups", Some(groups), is_group_name)?;
    }
    let change = Change {
        email: email(body.email.as_ref(), NO_EMAIL)?,
        role: role(body.role.as_ref())?,
        is_active: body.is_active,
        host_groups: body.host_groups.map(|groups| Some(groups).filter(|g| !g.is_empty())),
        ..Change::default()
    };
    let user = app.accounts.change(&by, &caller, &uuid, &change).await?;
    let (user, updated_at, is_active) = (Profile::from(&user), user.updated_at.rfc3339(), user.is_active);
    Ok(success(StatusCode::OK, &Updated { user, updated_at, is_active }))
}

/// Deletes an account with its log-ins and tokens.
#[utoipa::path(delete, path = "/api/v1/users/{id}", tag = "accounts", params(("id" = String, Path)),
    responses((status = 200), (status = 404), (status = 409)))]
async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Path(text): Path<String>,
) -> Result<Response> {
    let user = app.accounts.delete(&by, &caller, &id(&text)?).await?;
    tracing::warn!(username = user.username, by = %caller, "account deleted");
    Ok(success(StatusCode::OK, &json!({ "message": "User deleted successfully" })))
}

/// Changes a password: one's own with the old one, an admin anybody's. Every other log-in of the account ends.
#[utoipa::path(put, path = "/api/v1/users/{id}/password", tag = "accounts", params(("id" = String, Path)),
    request_body = PasswordBody, responses((status = 200), (status = 400), (status = 403), (status = 422)))]
async fn put_password(
    State(app): State<App>,
    caller: Caller,
    by: Author,
    Whose(uuid): Whose,
    Json(body): Json<PasswordBody>,
) -> Result<Response> {
    let user = app.accounts.by_uuid(&uuid).await?;
    let (old, new) = (body.old_password.map(Secret::new), Secret::new(body.new_password));
    app.accounts.change_password(&by, &caller, &user, old.as_ref(), &new).await?;
    Ok(success(StatusCode::OK, &json!({ "message": "Password updated successfully" })))
}
