//! All kept output of one stream of one host, as bytes, with ranges (RFC 9110, section 14).
//!
//! Offsets are those of what the command wrote. Where the middle was not kept, the kept bytes follow one another and
//! `omitted_from` and `omitted_bytes` say what is missing; ranges count kept bytes.

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, StatusCode};
use signet_common::messages::Stream;
use signet_common::{Hostname, TaskId};

use super::service::Commands;
use super::store;
use crate::error::{Error, Result};
use crate::store::Store;

/// One stored piece: its place among the kept bytes, its offset in the stream, its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    at: u64,
    offset: i64,
    size: u64,
}

/// A wish for part of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// First and last byte, inclusive.
    Part(u64, u64),
    /// Nothing of it exists.
    None,
}

/// Reads a `Range` header with one range of bytes; anything else counts as no wish, as the RFC allows.
fn wanted(headers: &HeaderMap, total: u64) -> Wanted {
    let text = headers.get(RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("bytes="));
    let Some((first, last)) = text.and_then(|t| t.split_once('-')) else { return Wanted::All };
    let number = |t: &str| t.parse::<u64>().ok();
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.min(total.saturating_sub(1))),
        (Some(first), None) if last.is_empty() => (first, total.saturating_sub(1)),
        (None, Some(0)) if first.is_empty() => return Wanted::None,
        (None, Some(count)) if first.is_empty() => (total.saturating_sub(count), total.saturating_sub(1)),
        _ => return Wanted::All,
    };
    if range.0 >= total { Wanted::None } else { Wanted::Part(range.0, range.1) }
}

/// Answers with a stream's bytes.
///
/// # Errors
/// 404 for an unknown target, and the database's.
pub(super) async fn output(
    commands: &Commands,
    task: TaskId,
    host: Hostname,
    kind: Stream,
    headers: &HeaderMap,
) -> Result<Response> {
    commands.target(&task, &host).await?;
    let mut pieces = Vec::new();
    let mut total = 0;
    for (offset, size) in store::layout(commands.store(), &task, &host, kind).await? {
        pieces.push(Piece { at: total, offset, size: size.unsigned_abs() });
        total += size.unsigned_abs();
    }
    let results = store::results(commands.store(), &task, std::slice::from_ref(&host)).await?;
    let mut response = Response::builder()
        // Bytes, whatever they are: a browser must not take them for a page.
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(ACCEPT_RANGES, "bytes");
    if let Some(row) = results.get(host.as_str()) {
        let (bytes, from, omitted) = match kind {
            Stream::Stdout => (row.stdout_bytes, row.stdout_omitted_from, row.stdout_omitted_bytes),
            Stream::Stderr => (row.stderr_bytes, row.stderr_omitted_from, row.stderr_omitted_bytes),
        };
        response = response.header(HeaderName::from_static("signet-total-bytes"), bytes);
        if let Some(from) = from {
            response = response
                .header(HeaderName::from_static("signet-omitted-from"), from)
                .header(HeaderName::from_static("signet-omitted-bytes"), omitted);
        }
    }
    let (first, last) = match wanted(headers, total) {
        Wanted::None => {
            let answer = response.status(StatusCode::RANGE_NOT_SATISFIABLE);
            return built(answer.header(CONTENT_RANGE, format!("bytes */{total}")).body(Body::empty()));
        }
        Wanted::All => (0, total),
        Wanted::Part(first, last) => {
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, format!("bytes {first}-{last}/{total}"));
            (first, last + 1)
        }
    };
    let body = bytes(commands.store().clone(), task, host, kind, pieces, first, last);
    built(response.header(CONTENT_LENGTH, last - first).body(Body::from_stream(body)))
}

fn built(response: std::result::Result<Response, http::Error>) -> Result<Response> {
    response.map_err(|e| Error::Internal(e.to_string()))
}

/// Reads one piece at a time, so that 64 MiB never stand in memory.
fn bytes(
    store: Store,
    task: TaskId,
    host: Hostname,
    kind: Stream,
    pieces: Vec<Piece>,
    first: u64,
    end: u64,
) -> impl futures_util::Stream<Item = Result<Bytes>> {
    let touched: Vec<Piece> = pieces.into_iter().filter(|p| p.at < end && p.at + p.size > first).collect();
    stream::try_unfold(touched.into_iter(), move |mut rest| {
        let (store, task, host) = (store.clone(), task.clone(), host.clone());
        async move {
            let Some(piece) = rest.next() else { return Ok(None) };
            let found = store::pieces(&store, &task, &host, kind, piece.offset, 1).await?;
            let data = found.into_iter().find(|(at, _)| *at == piece.offset).map(|(_, data)| data);
            // Retention may be quicker than a slow reader.
            let data = data.ok_or_else(|| Error::NotFound("this output is no longer kept".into()))?;
            let cut =
                |at: u64| usize::try_from(at.clamp(piece.at, piece.at + piece.size) - piece.at).unwrap_or(0);
            let part = data.get(cut(first)..cut(end)).unwrap_or_default();
            Ok(Some((Bytes::copy_from_slice(part), rest)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: &str, total: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        wanted(&headers, total)
    }

    #[test]
    fn ranges_are_the_rfcs() {
        assert_eq!(of("bytes=0-9", 100), Wanted::Part(0, 9));
        assert_eq!(of("bytes=90-", 100), Wanted::Part(90, 99));
        assert_eq!(of("bytes=-10", 100), Wanted::Part(90, 99));
        assert_eq!(of("bytes=-200", 100), Wanted::Part(0, 99));
        assert_eq!(of("bytes=50-500", 100), Wanted::Part(50, 99));
        assert_eq!(of("bytes=100-", 100), Wanted::None);
        assert_eq!(of("bytes=0-", 0), Wanted::None);
        assert_eq!(of("bytes=-0", 100), Wanted::None);
        for odd in ["lines=1-2", "bytes=5-2", "bytes=a-b", "bytes=1-2,4-5", "bytes="] {
            assert_eq!(of(odd, 100), Wanted::All, "{odd}");
        }
    }
}
