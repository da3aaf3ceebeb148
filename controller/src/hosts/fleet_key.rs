//! HTTP in, HTTP out: the key that the fleet believes, and its rotation.

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use signet_common::time::Micros;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::extract::Author;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_keys)).routes(routes!(rotate)).routes(routes!(revoke))
}

/// The newest keyring, and who holds it.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct KeysView {
    version: u64,
    /// Of the key that signs, SHA-256 in hex.
    fingerprint: String,
    /// Of the key before, which hosts still believe; null when there is none, or it was revoked.
    previous: Option<String>,
    created_at: Option<String>,
    /// Which versions hosts hold.
    hosts: Vec<HoldersView>,
    /// Hosts with an older version. Nothing but the keyring is sent to them.
    behind: u64,
}

/// How many hosts hold one version of the keyring.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct HoldersView {
    /// 0 = none yet.
    version: u64,
    hosts: u64,
}

/// The fleet's key and the hosts that hold its keyring.
#[utoipa::path(get, path = "/api/keys", tag = "keys", responses((status = 200, body = KeysView)))]
async fn get_keys(State(app): State<App>) -> Result<axum::Json<KeysView>> {
    let keys = app.keys.newest(&app.store).await?;
    let holders = app.hosts.count_keyrings().await?;
    let made_at = app.keys.made_at(&app.store, keys.version()).await?;
    Ok(axum::Json(KeysView {
        version: keys.version(),
        fingerprint: keys.keyring().current().id().to_string(),
        previous: keys.keyring().previous().map(|key| key.id().to_string()),
        created_at: made_at.map(Micros::rfc3339),
        behind: holders.iter().filter(|(version, _)| *version < keys.version()).map(|(_, hosts)| hosts).sum(),
        hosts: holders.into_iter().map(|(version, hosts)| HoldersView { version, hosts }).collect(),
    }))
}

/// Makes a new key and signs with it from now on. Hosts believe the one before until the next rotation.
#[utoipa::path(post, path = "/api/keys/rotate", tag = "keys",
    responses((status = 201, body = KeysView), (status = 409)))]
async fn rotate(State(app): State<App>, by: Author) -> Result<(StatusCode, axum::Json<KeysView>)> {
    renew(app, &by, false).await
}

/// Makes a new key, and hosts believe no other from their next keyring on: for a key that was stolen.
#[utoipa::path(post, path = "/api/keys/revoke", tag = "keys",
    responses((status = 201, body = KeysView), (status = 409)))]
async fn revoke(State(app): State<App>, by: Author) -> Result<(StatusCode, axum::Json<KeysView>)> {
    renew(app, &by, true).await
}

async fn renew(app: App, by: &Author, revoke: bool) -> Result<(StatusCode, axum::Json<KeysView>)> {
    // Hosts would believe nothing of another chain.
    if let Some(why) = app.dispatch.keyring_old().await? {
        return Err(Error::Conflict(why));
    }
    let keys = app.keys.rotate(by, &app.store, revoke).await?;
    tracing::warn!(version = keys.version(), by = %by.who, revoke, "the fleet's key was renewed");
    app.dispatch.look_soon();
    Ok((StatusCode::CREATED, get_keys(State(app)).await?))
}
