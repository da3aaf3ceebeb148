//! HTTP in, HTTP out: reading the trail.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::Uri;
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use signet_common::time::Micros;
use signet_common::trail::Line;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, EntryRow, Filter};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::extract::{Query, moment};
use crate::http::list::{cursor, cursor_of, json_array, link_next, page_limit};
use crate::limits::{
    AUDIT_BLOCKS_AT_ONCE, AUDIT_EXPORT_ROWS, AUDIT_PAGE, AUDIT_PAGE_MAX, AUDIT_ROWS_AT_ONCE,
    AUDIT_UNSEALED_EXPORTED_MAX,
};
use crate::store::Store;

/// The slice's routes.
#[must_use]
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_audit)).routes(routes!(export_audit)).routes(routes!(audit_head))
}

/// An entry of the trail.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct EntryView {
    /// The block that seals it; null for about a second.
    block: Option<i64>,
    /// `id`, `at`, `who`, `via`, `from`, `request`, `action`, `object`, `result` (`success`, `refused`, `failed`), and
    /// `old` and `new` values, or `status`, `details` and `count`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    entry: serde_json::Value,
}

impl From<EntryRow> for EntryView {
    fn from(row: EntryRow) -> Self {
        let whole = row.is_found_by_what_it_says();
        let entry = serde_json::from_str(&row.entry).ok().filter(|_| whole);
        let damaged = || serde_json::json!({ "id": row.id, "damaged": row.entry });
        Self { block: row.block_no, entry: entry.unwrap_or_else(damaged) }
    }
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// At most this many; 100 unless given, 1,000 at most.
    limit: Option<u32>,
    /// Where the page before ended, from its `Link`.
    cursor: Option<String>,
    /// From this moment on (RFC 3339).
    since: Option<String>,
    /// Before this moment (RFC 3339).
    until: Option<String>,
    /// An account's name, `agent ID`, `nobody`.
    who: Option<String>,
    /// As `command.run`.
    action: Option<String>,
    /// What something was done to: a task's id, a hostname, an account's name.
    object: Option<String>,
    /// `success`, `refused` or `failed`.
    result: Option<String>,
}

/// Who did what, newest first.
#[utoipa::path(get, path = "/api/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Vec<EntryView>), (status = 400)))]
async fn list_audit(State(app): State<App>, uri: Uri, Query(query): Query<AuditQuery>) -> Result<Response> {
    let limit = page_limit(query.limit, AUDIT_PAGE, AUDIT_PAGE_MAX)?;
    let until = moment("until", query.until.as_deref())?.map_or(i64::MAX, |at| at.0);
    let from = cursor::<i64, String>(query.cursor.as_deref())?.unwrap_or((until, String::new()));
    let filter = Filter {
        since: moment("since", query.since.as_deref())?,
        who: query.who,
        action: query.action,
        object: query.object,
        result: query.result,
    };
    // One more than asked for tells whether there is another page.
    let mut rows = store::list(&app.store, &filter, &from, (limit + 1).min(AUDIT_ROWS_AT_ONCE)).await?;
    let next = store::list_end(&app.store, &filter, &from, limit).await?;
    rows.truncate(limit);
    let store = app.store.clone();
    let read = move |(rows, left): (Vec<EntryRow>, usize)| {
        let (store, filter) = (store.clone(), filter.clone());
        async move {
            let left = left - rows.len();
            let next = match rows.last().filter(|_| left > 0) {
                Some(last) => {
                    let place = (last.at, last.id.clone());
                    store::list(&store, &filter, &place, left.min(AUDIT_ROWS_AT_ONCE)).await?
                }
                None => Vec::new(),
            };
            let views = rows.into_iter().map(EntryView::from).collect::<Vec<_>>();
            Ok((views, (!next.is_empty()).then_some((next, left))))
        }
    };
    let mut response = json_array((rows, limit), read).await?;
    if let Some((at, id)) = next {
        link_next(&mut response, &uri, &cursor_of(at, id));
    }
    Ok(response)
}

#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExportQuery {
    /// From this block on; from the first unless given.
    from: Option<i64>,
}

/// The whole trail as JSON lines, for `signet audit verify`: the fleet's keyring, each signed block with its entries
/// byte for byte, and what is not sealed yet.
#[utoipa::path(get, path = "/api/audit/export", tag = "audit", params(ExportQuery),
    responses((status = 200, content_type = "application/x-ndjson", body = String)))]
async fn export_audit(State(app): State<App>, Query(query): Query<ExportQuery>) -> Result<Response> {
    let keys = app.keys.newest(&app.store).await?;
    let mut head = Vec::new();
    write(&mut head, &Line::Keyring(keys.chain().to_vec()))?;
    // The first part is read before the status is sent, so that a database that is away is still a 503.
    let first = part(&app.store, query.from.unwrap_or(1)).await?;
    let store = app.store.clone();
    let rest = stream::try_unfold(Some(first), move |part: Option<Part>| {
        let store = store.clone();
        async move {
            let Some(Part { lines, next }) = part else { return Ok::<_, Error>(None) };
            let next = match next {
                Some(from) => Some(self::part(&store, from).await?),
                None => None,
            };
            Ok(Some((Bytes::from(lines), next)))
        }
    });
    let whole = stream::once(async { Ok(Bytes::from(head)) }).chain(rest);
    let whole =
        whole.inspect_err(|error: &Error| tracing::warn!(%error, "an export of the audit trail broke off"));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(whole)).into_response())
}

/// A part of an export, and the block with which the next begins.
struct Part {
    lines: Vec<u8>,
    next: Option<i64>,
}

fn write(out: &mut Vec<u8>, line: &Line) -> Result<()> {
    serde_json::to_writer(&mut *out, line).map_err(|e| Error::Internal(e.to_string()))?;
    out.push(b'\n');
    Ok(())
}

/// A stored entry as it is exported; what was changed by hand must not stop an export.
fn entry(row: EntryRow, line: fn(Box<RawValue>) -> Line) -> Line {
    let whole = !row.entry.contains(['\n', '\r']) && row.is_found_by_what_it_says();
    match RawValue::from_string(row.entry.clone()) {
        Ok(raw) if whole && raw.get() == row.entry => line(raw),
        _ => Line::Damaged(row.entry),
    }
}

/// Some blocks from this one on with their entries, or after the last what is not sealed.
async fn part(store: &Store, from: i64) -> Result<Part> {
    let mut blocks = store::blocks(store, from, AUDIT_BLOCKS_AT_ONCE).await?;
    let mut lines = Vec::new();
    let (Some(first), mut sum) = (blocks.first().map(|b| b.block_no), 0) else {
        for row in store::unsealed(store, AUDIT_UNSEALED_EXPORTED_MAX).await? {
            write(&mut lines, &entry(row, Line::Unsealed))?;
        }
        return Ok(Part { lines, next: None });
    };
    let fits = blocks.iter().take_while(|block| {
        sum += block.entries.max(0);
        sum <= AUDIT_EXPORT_ROWS || sum == block.entries
    });
    let fits = fits.count().max(1);
    blocks.truncate(fits);
    let last = blocks.last().map_or(first, |block| block.block_no);
    let wanted: i64 = blocks.iter().map(|block| block.entries.max(0)).sum();
    // A few more than there should be: entries that were added to a sealed block are to be seen.
    let limit = usize::try_from(wanted).unwrap_or(0) + AUDIT_ROWS_AT_ONCE;
    let mut entries = store::entries(store, first..=last, limit).await?.into_iter().peekable();
    for block in blocks {
        let signed = serde_json::from_str(&block.envelope);
        write(&mut lines, &signed.map_or_else(|_| Line::Damaged(block.envelope.clone()), Line::Block))?;
        while let Some(row) = entries.next_if(|row| row.block_no <= Some(block.block_no)) {
            write(&mut lines, &entry(row, Line::Entry))?;
        }
    }
    Ok(Part { lines, next: Some(last + 1) })
}

/// Where the trail ends now. Kept elsewhere, it proves later that nothing before it was changed or cut off.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct HeadView {
    /// The last block; 0 before the first.
    block: i64,
    /// SHA-256 of its signed payload; empty before the first.
    head: String,
    sealed_at: Option<String>,
    /// Entries that no block seals yet.
    unsealed: i64,
}

/// The trail's last block.
#[utoipa::path(get, path = "/api/audit/head", tag = "audit", responses((status = 200, body = HeadView)))]
async fn audit_head(State(app): State<App>) -> Result<axum::Json<HeadView>> {
    let unsealed = store::count_unsealed(&app.store).await?;
    let last = store::head(&app.store).await?;
    let sealed_at = last.as_ref().map(|(_, _, at)| Micros(*at).rfc3339());
    let (block, head) = last.map_or((0, String::new()), |(block, head, _)| (block, head));
    Ok(axum::Json(HeadView { block, head, sealed_at, unsealed }))
}
