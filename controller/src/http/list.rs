//! Long lists: bare JSON arrays, read and sent chunk by chunk, with the next page in `Link`.

use std::fmt::Display;
use std::future::Future;
use std::str::FromStr;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderValue, Uri};
use serde::Serialize;

use crate::error::Error;

/// A chunk of a list, and where the next one begins; `None` = it was the last.
pub type Chunk<T, C> = (Vec<T>, Option<C>);

/// Answers with a JSON array. The first chunk is read before the status is sent, so that a database that is away is
/// still a 503; when it goes away later, the answer breaks off.
///
/// # Errors
/// What reading the first chunk says.
pub async fn json_array<T, C, F, Fut>(from: C, mut read: F) -> Result<Response, Error>
where
    T: Serialize + Send + 'static,
    C: Send + 'static,
    F: FnMut(C) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Chunk<T, C>, Error>> + Send + 'static,
{
    let (rows, next) = read(from).await?;
    let mut head = b"[".to_vec();
    write_rows(&mut head, &rows, true)?;
    let json = [(CONTENT_TYPE, "application/json")];
    let Some(next) = next else {
        head.push(b']');
        return Ok((json, head).into_response());
    };
    let empty = rows.is_empty();
    let rest = stream::try_unfold((Some(next), read, empty), async |(at, mut read, empty)| {
        let Some(at) = at else { return Ok::<_, Error>(None) };
        let (rows, next) = read(at).await?;
        let mut bytes = Vec::new();
        write_rows(&mut bytes, &rows, empty)?;
        Ok(Some((Bytes::from(bytes), (next, read, empty && rows.is_empty()))))
    });
    let ends = stream::once(async { Ok(Bytes::from_static(b"]")) });
    let whole = stream::once(async { Ok(Bytes::from(head)) }).chain(rest).chain(ends);
    let whole = whole.inspect_err(|error: &Error| tracing::warn!(%error, "an answer broke off"));
    Ok((json, Body::from_stream(whole)).into_response())
}

fn write_rows<T: Serialize>(out: &mut Vec<u8>, rows: &[T], mut first: bool) -> Result<(), Error> {
    for row in rows {
        if !first {
            out.push(b',');
        }
        first = false;
        serde_json::to_writer(&mut *out, row).map_err(|e| Error::Internal(format!("answer: {e}")))?;
    }
    Ok(())
}

/// Names the next page: this address with another `cursor`, which must need no escaping in a query.
pub fn link_next(response: &mut Response, uri: &Uri, cursor: &str) {
    let others =
        uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.starts_with("cursor="));
    let query = others.chain([format!("cursor={cursor}").as_str()]).collect::<Vec<_>>().join("&");
    let link = format!("<{}?{query}>; rel=\"next\"", uri.path());
    response.headers_mut().extend(HeaderValue::from_str(&link).ok().map(|link| (LINK, link)));
}

/// How many rows a page has: as many as were asked for, `default` unless any, `max` at most.
///
/// # Errors
/// 400 for none.
pub fn page_limit(asked: Option<u32>, default: usize, max: usize) -> Result<usize, Error> {
    match asked {
        Some(0) => Err(Error::invalid("limit", "limit must be at least 1")),
        Some(n) => Ok((n as usize).min(max)),
        None => Ok(default),
    }
}

/// The rows of a page, of which one more than `limit` was asked for; and where the next page begins, if there is one.
pub fn page<T>(
    mut rows: Vec<T>,
    limit: usize,
    cursor: impl FnOnce(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(cursor);
    (rows, next)
}

/// Answers with a page: a JSON array, and in `Link` the next one.
pub fn listed<T: Serialize>(views: &[T], uri: &Uri, next: Option<&str>) -> Response {
    let mut response = axum::Json(views).into_response();
    if let Some(next) = next {
        link_next(&mut response, uri, next);
    }
    response
}

/// A cursor of two parts, for [`cursor`] to read.
pub fn cursor_of(first: impl Display, second: impl Display) -> String {
    format!("{first}-{second}")
}

/// Reads a cursor of two parts, `first-second`.
///
/// # Errors
/// 400 for one that is not ours.
pub fn cursor<A: FromStr, B: FromStr>(text: Option<&str>) -> Result<Option<(A, B)>, Error> {
    let Some(text) = text else { return Ok(None) };
    let place = text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    place.map(Some).ok_or_else(|| Error::invalid("cursor", "cursor is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(from: u32, last: u32) -> String {
        let read = move |at: u32| async move {
            let rows = if at == 2 { vec![] } else { vec![at, at * 10] };
            Ok((rows, (at < last).then_some(at + 1)))
        };
        let response = json_array(from, read).await.unwrap();
        let bytes = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn chunks_make_one_array() {
        assert_eq!(text(1, 1).await, "[1,10]");
        assert_eq!(text(2, 2).await, "[]");
        assert_eq!(text(1, 3).await, "[1,10,3,30]");
        assert_eq!(text(2, 3).await, "[3,30]");
    }

    #[test]
    fn a_page_ends_where_the_next_one_begins() {
        let pages = |rows: &[u32]| page(rows.to_vec(), 2, u32::to_string);
        assert_eq!(pages(&[]), (vec![], None));
        assert_eq!(pages(&[1, 2]), (vec![1, 2], None));
        assert_eq!(pages(&[1, 2, 3]), (vec![1, 2], Some("2".into())));
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let read = |text: &str| cursor::<i64, String>(Some(text)).ok().flatten();
        assert_eq!(read(&cursor_of(7, "a-b")), Some((7, "a-b".into())));
        assert_eq!(read("7"), None);
        assert_eq!(read("x-b"), None);
    }

    #[test]
    fn the_next_page_keeps_the_other_parameters() {
        let mut response = ().into_response();
        link_next(&mut response, &"/api/servers?limit=2&cursor=a&group=web".parse().unwrap(), "b");
        assert_eq!(response.headers()[LINK], "</api/servers?limit=2&group=web&cursor=b>; rel=\"next\"");
    }
}
