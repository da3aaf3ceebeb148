//! `/api/v1/jobs/host-keys`: the keys that hosts showed first, and must show again until an administrator forgets them.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use signet_common::time::Micros;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Good, good, page};
use super::host_key_store::{self, HostKeyRow};
use super::model;
use crate::app::App;
use crate::audit::{self, Action, Note};
use crate::error::{Error, Result};
use crate::http::extract::{Author, Path, Query};
use crate::store::in_transaction;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_host_keys)).routes(routes!(forget_host_key))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct KeysQuery {
    /// From 1.
    #[param(value_type = Option<u64>)]
    page: Option<String>,
    /// 20 unless given, 100 at most.
    #[param(value_type = Option<u64>)]
    page_size: Option<String>,
}

/// A pinned key.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct KeyView {
    /// Address or name, in lower case.
    host: String,
    /// Where it listens.
    port: i64,
    /// Type and key, as OpenSSH writes them.
    key: String,
    /// The job to which the host showed it first.
    job_id: String,
    /// UTC.
    pinned_at: String,
}

/// A page of pinned keys.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct KeysView {
    /// By host and port.
    items: Vec<KeyView>,
    /// On all pages.
    total: i64,
    /// From 1.
    page: usize,
    /// Keys on a full page.
    page_size: usize,
}

/// Keys of hosts over SSH that are pinned.
#[utoipa::path(get, path = "/api/v1/jobs/host-keys", tag = "jobs", params(KeysQuery),
    responses((status = 200, body = Good<KeysView>), (status = 422)))]
async fn list_host_keys(State(app): State<App>, Query(query): Query<KeysQuery>) -> Result<Response> {
    let mut wrong = Vec::new();
    let (page, size) = page(query.page.as_deref(), query.page_size.as_deref(), &mut wrong);
    if !wrong.is_empty() {
        return Err(Error::InvalidFields(wrong));
    }
    let offset = (page - 1).saturating_mul(size);
    let (rows, total) = host_key_store::all_host_keys(app.jobs.store(), size, offset).await?;
    let view = |row: HostKeyRow| KeyView {
        host: row.host,
        port: row.port,
        key: row.host_key,
        job_id: model::shown(row.job_id),
        pinned_at: Micros(row.pinned_at).rfc3339(),
    };
    let items = rows.into_iter().map(view).collect();
    Ok(good(StatusCode::OK, KeysView { items, total, page, page_size: size }))
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PortQuery {
    /// Where the host listens; 22 unless given.
    #[param(value_type = Option<u16>)]
    port: Option<String>,
}

/// Whose key is forgotten.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct Forgotten {
    /// Address or name, in lower case.
    host: String,
    /// Where it listens.
    port: u16,
}

/// Forgets the pinned key of a host that was installed anew: what it shows next is pinned.
#[utoipa::path(delete, path = "/api/v1/jobs/host-keys/{host}", tag = "jobs", params(("host" = String, Path), PortQuery),
    responses((status = 200, body = Good<Forgotten>), (status = 404), (status = 422)))]
async fn forget_host_key(
    State(app): State<App>,
    by: Author,
    Path(host): Path<String>,
    Query(query): Query<PortQuery>,
) -> Result<Response> {
    let host = host.to_ascii_lowercase();
    let port =
        query.port.as_deref().map_or(Some(SSH_PORT), |text| text.parse().ok()).filter(|port| *port > 0);
    let port = port.ok_or_else(|| Error::invalid("port", "must be a whole number from 1 to 65535"))?;
    in_transaction!(app.jobs.store(), |tx| -> Result<()> {
        let key = host_key_store::unpin(tx, &host, port).await?;
        let key = key.ok_or_else(|| Error::NotFound("no key of this host and port is pinned".into()))?;
        let object = format!("{host} port {port}");
        let note = Note::of(Action::JobHostKeyForget, &object).old(json!({ "key": key }));
        Ok(audit::note(tx, &by, note).await?)
    })?;
    Ok(good(StatusCode::OK, Forgotten { host, port }))
}

const SSH_PORT: u16 = 22;
