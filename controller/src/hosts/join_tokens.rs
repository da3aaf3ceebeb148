//! Join tokens: made and revoked by an admin, used by hosts that are new (DESIGN 3).

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;
use signet_common::glob;
use signet_common::join::{JoinToken, TokenVerifier};
use signet_common::keyring::Keyring;
use signet_common::messages::Hello;
use signet_common::time::Micros;
use signet_common::{AgentId, Hostname, KeyId};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::enrolment::{ALONE, asked_group};
use super::join_store::{self, TokenRow};
use super::routes::hosts_limit;
use super::service::group_name;
use crate::app::App;
use crate::audit::{self, Action, Note};
use crate::error::{Error, Result};
use crate::http::extract::{Author, Path, Query};
use crate::http::known::Exact;
use crate::http::list::{listed, page};
use crate::limits::{JOIN_TOKEN_SECONDS, JOIN_TOKEN_SECONDS_MAX, JOIN_TOKEN_USES_MAX};
use crate::settings::BusSettings;
use crate::store::{Tx, corrupt, in_transaction};

/// Random bytes of a token's id and of its secret.
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_join_tokens, post_join_token)).routes(routes!(delete_join_token))
}

/// How a token stands, whoever comes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenState {
    Open,
    UsedUp,
    Expired,
    Revoked,
    /// It pins a controller key that hosts must not believe any more.
    Void,
}

impl TokenState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::UsedUp => "used_up",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Void => "void",
        }
    }

    fn of(row: &TokenRow, keyring: &Keyring, now: Micros) -> Result<Self> {
        let pinned: KeyId = row.fingerprint.parse().map_err(corrupt)?;
        Ok(match row {
            _ if row.revoked_at.is_some() => Self::Revoked,
            _ if keyring.find(&pinned).is_none() => Self::Void,
            _ if row.expires_at <= now.0 => Self::Expired,
            _ if row.uses >= row.max_uses => Self::UsedUp,
            _ => Self::Open,
        })
    }
}

/// What a token is sealed under.
fn seal_name(id: &str) -> String {
    format!("join-token.{id}")
}

fn random<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Internal("no randomness".into()))?;
    Ok(hex::encode(bytes))
}

/// What a join token says about a new key. Strangers hear the same of every refusal; the reason is for the log.
pub(super) enum Admission {
    /// It may enrol, into this group; without one, into the one that it asks for.
    Admitted(Option<String>),
    Refused(&'static str),
}

/// Whether a join token lets this new key in; counts the use once per agent. Holds the token until the end of the
/// transaction.
pub(super) async fn admit(
    app: &App,
    tx: &mut Tx,
    agent: &AgentId,
    hello: &Hello,
    now: Micros,
) -> Result<Admission> {
    use Admission::{Admitted, Refused};
    let Some(proof) = &hello.join else { return Ok(Refused("no join token came with it")) };
    let fixed = app.settings.join_token.as_ref().and_then(|t| t.reveal().parse::<JoinToken>().ok());
    if let Some(token) = fixed.filter(|token| token.id == proof.token_id) {
        let holds = token.verifier().accepts(proof, &hello.controller_nonce, agent);
        return Ok(if holds {
            Admitted(None)
        } else {
            Refused("the proof of the static join token is wrong")
        });
    }
    let Some(row) = join_store::token(tx, &proof.token_id).await? else {
        return Ok(Refused("there is no such join token"));
    };
    let verifier = app.keys.master().open(&seal_name(&row.id), &row.sealed);
    let verifier =
        String::from_utf8(verifier.map_err(|e| Error::Internal(e.to_string()))?).map_err(corrupt)?;
    if !TokenVerifier::from_stored(verifier).accepts(proof, &hello.controller_nonce, agent) {
        return Ok(Refused("the proof of the join token is wrong"));
    }
    // Held only for who knows the secret.
    let Some(row) = join_store::locked(tx, &row.id).await? else {
        return Ok(Refused("there is no such join token"));
    };
    let used = join_store::was_used(tx, &row.id, agent).await?;
    let fleet = app.keys.newest_in(tx).await?;
    match TokenState::of(&row, fleet.keyring(), now)? {
        TokenState::Open => {}
        TokenState::UsedUp if used => {}
        TokenState::UsedUp => return Ok(Refused("the join token is used up")),
        TokenState::Expired => return Ok(Refused("the join token has expired")),
        TokenState::Revoked => return Ok(Refused("the join token was revoked")),
        TokenState::Void => return Ok(Refused("the join token pins a controller key that no longer counts")),
    }
    if row.hostname.as_ref().is_some_and(|pattern| !glob::matches(pattern, hello.hostname.as_str())) {
        return Ok(Refused("the join token is for other hostnames"));
    }
    if row.grp.as_deref().zip(asked_group(hello)).is_some_and(|(allowed, asked)| allowed != asked) {
        return Ok(Refused("the join token is for another group"));
    }
    if !used {
        join_store::count_use(tx, &row.id, agent, now).await?;
    }
    Ok(Admitted(row.grp))
}

/// A join token without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct JoinTokenView {
    id: String,
    /// SHA-256 of the controller key that hosts believe which join with it.
    fingerprint: String,
    /// The group that it enrols into; null = the one that the host asks for.
    group: Option<String>,
    /// What the host's name must look like, `*` = any text; null = any name.
    hostname: Option<String>,
    /// How many hosts it lets in.
    uses: i64,
    /// How many of them are still to come.
    uses_left: i64,
    expires_at: String,
    /// `open`, `used_up`, `expired`, `revoked`, or `void`: the controller key that it pins no longer counts
    state: &'static str,
    created_at: String,
    created_by: String,
}

impl JoinTokenView {
    fn new(row: TokenRow, keyring: &Keyring, now: Micros) -> Result<Self> {
        Ok(Self {
            state: TokenState::of(&row, keyring, now)?.as_str(),
            id: row.id,
            fingerprint: row.fingerprint,
            group: row.grp,
            hostname: row.hostname,
            uses: row.max_uses,
            uses_left: (row.max_uses - row.uses).max(0),
            expires_at: Micros(row.expires_at).rfc3339(),
            created_at: Micros(row.created_at).rfc3339(),
            created_by: row.created_by,
        })
    }
}

/// A join token that was just made.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct NewJoinTokenView {
    /// `id.secret.fingerprint`; shown this once.
    token: String,
    /// Why no host can join with it as things are.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    #[serde(flatten)]
    view: JoinTokenView,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
struct JoinTokenBody {
    /// The group that it enrols into; any that the host asks for unless given.
    group: Option<String>,
    /// What the host's name must look like, `*` = any text; any name unless given.
    hostname: Option<String>,
    /// How many hosts it lets in; 1 unless given.
    uses: Option<u32>,
    /// For how many seconds; 3,600 unless given.
    expires_in: Option<u32>,
}

/// A pattern is a hostname in which stars may stand.
fn pattern(text: &str) -> Result<String> {
    let wrong = || Error::invalid("hostname", "hostname must be a hostname, in which * stands for any text");
    text.replace('*', "a").parse::<Hostname>().map_err(|_| wrong())?;
    Ok(text.to_ascii_lowercase())
}

fn within(field: &str, asked: Option<u32>, default: u32, max: u32) -> Result<i64> {
    let number = asked.unwrap_or(default);
    if !(1..=max).contains(&number) {
        return Err(Error::invalid(field, format!("{field} must be 1 to {max}")));
    }
    Ok(number.into())
}

/// Makes a join token; the answer alone shows it.
#[utoipa::path(post, path = "/api/join-tokens", tag = "agents", request_body = JoinTokenBody,
    responses((status = 201, body = NewJoinTokenView), (status = 400)))]
async fn post_join_token(
    State(app): State<App>,
    by: Author,
    Exact(body): Exact<JoinTokenBody>,
) -> Result<Response> {
    if let Some(group) = &body.group {
        group_name(group)?;
    }
    let fleet = app.keys.newest(&app.store).await?;
    let keyring = fleet.keyring();
    let now = Micros::now();
    let token =
        JoinToken::new(random::<ID_BYTES>()?, random::<SECRET_BYTES>()?, keyring.current().id().clone());
    let sealed = app.keys.master().seal(&seal_name(&token.id), token.verifier().as_str().as_bytes());
    let lasts = within("expires_in", body.expires_in, JOIN_TOKEN_SECONDS, JOIN_TOKEN_SECONDS_MAX)?;
    let row = TokenRow {
        id: token.id.clone(),
        sealed: sealed.map_err(|e| Error::Internal(e.to_string()))?,
        fingerprint: keyring.current().id().to_string(),
        grp: body.group,
        hostname: body.hostname.as_deref().map(pattern).transpose()?,
        max_uses: within("uses", body.uses, 1, JOIN_TOKEN_USES_MAX)?,
        expires_at: now.plus_seconds(lasts).0,
        revoked_at: None,
        created_at: now.0,
        created_by: by.who.clone(),
        uses: 0,
    };
    let note = Note::of(Action::JoinTokenMake, &row.id).new(json!({
        "group": row.grp,
        "hostname": row.hostname,
        "uses": row.max_uses,
        "expires_at": Micros(row.expires_at).rfc3339(),
    }));
    in_transaction!(app.store, |tx| -> Result<()> {
        join_store::insert(tx, &row).await?;
        Ok(audit::note(tx, &by, note.clone()).await?)
    })?;
    tracing::info!(token = %row.id, by = %row.created_by, group = row.grp, hostname = row.hostname, "join token made");
    let view = JoinTokenView::new(row, keyring, now)?;
    let warning = matches!(app.settings.bus, BusSettings::InProcess).then_some(ALONE);
    Ok((StatusCode::CREATED, axum::Json(NewJoinTokenView { token: token.reveal(), warning, view }))
        .into_response())
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct JoinTokenQuery {
    /// At most this many; 10,000 unless given.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
}

/// Join tokens without their secrets, by id. Those that expired a month ago are forgotten.
#[utoipa::path(get, path = "/api/join-tokens", tag = "agents", params(JoinTokenQuery),
    responses((status = 200, body = Vec<JoinTokenView>)))]
async fn list_join_tokens(
    State(app): State<App>,
    uri: Uri,
    Query(query): Query<JoinTokenQuery>,
) -> Result<Response> {
    let limit = hosts_limit(query.limit)?;
    let rows = join_store::list(&app.store, &query.cursor.unwrap_or_default(), limit + 1).await?;
    let (rows, next) = page(rows, limit, |row| row.id.clone());
    let (fleet, now) = (app.keys.newest(&app.store).await?, Micros::now());
    let keyring = fleet.keyring();
    let views: Vec<_> =
        rows.into_iter().map(|row| JoinTokenView::new(row, keyring, now)).collect::<Result<_>>()?;
    Ok(listed(&views, &uri, next.as_deref()))
}

/// Revokes a join token: it lets nobody in any more. Hosts that joined with it stay.
#[utoipa::path(delete, path = "/api/join-tokens/{id}", tag = "agents", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
async fn delete_join_token(State(app): State<App>, by: Author, Path(id): Path<String>) -> Result<StatusCode> {
    let now = Micros::now();
    in_transaction!(app.store, |tx| -> Result<()> {
        if !join_store::revoke(tx, &id, now).await? {
            return Err(Error::NotFound("Join token not found".into()));
        }
        Ok(audit::note(tx, &by, Note::of(Action::JoinTokenRevoke, &id)).await?)
    })?;
    tracing::info!(token = %id, by = %by.who, "join token revoked");
    Ok(StatusCode::NO_CONTENT)
}
