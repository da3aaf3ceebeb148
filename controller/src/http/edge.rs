//! The outermost layer of every request: its id and log line, its true peer, one form for paths with and without a
//! final slash, panics, and the wording of errors.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri};
use signet_common::time::Micros;
use tracing::Instrument as _;

use super::dialect::{Failed, render};
use super::{discard, proxies};
use crate::app::App;
use crate::audit::{Action, Author, RequestId, Subject};
use crate::error::Error;
use crate::limits::REQUEST_ID_BYTES_MAX;

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address, behind trusted proxies the one that they name.
    pub ip: IpAddr,
    /// Whether it came from this machine, and nobody passed it on from elsewhere.
    pub loopback: bool,
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get().copied().ok_or_else(|| Error::Internal("the request has no peer".into()))
    }
}

const REQUEST_ID: &str = "x-request-id";

pub(super) async fn edge(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(id.to_str().unwrap_or_default().to_owned()));
    let socket = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let socket = socket.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let (ip, unbelieved) = proxies::peer(socket, request.headers(), &app.settings.trusted_proxies);
    request.extensions_mut().insert(Peer { ip, loopback: ip.is_loopback() && !unbelieved });
    let method = request.method().clone();
    // The path alone: a query may hold a ticket, and nothing of it may reach a log.
    let path = request.uri().path().to_owned();
    if let Some(uri) = without_slash(request.uri()) {
        *request.uri_mut() = uri;
    }
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());
    let mut response = async {
        let (request, rest) = discard::watch(request);
        let answer = caught(next.run(request)).await;
        if answer.extensions().get::<Failed>().is_some() {
            rest.discard().await;
        }
        let (response, refusal) = worded(answer, &path);
        if let Some((by, why)) = refusal {
            note_refusal(&app, &method, &by, &response, &why);
        }
        let status = response.status().as_u16();
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        count(&method, response.extensions().get::<MatchedPath>(), status, began);
        tracing::info!(%method, path, status, micros, peer = %ip, "answered");
        response
    }
    .instrument(span)
    .await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The client's id when it can stand in a log, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |id: &HeaderValue| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
    };
    if let Some(id) = headers.get(REQUEST_ID).filter(|id| plain(id)) {
        return id.clone();
    }
    HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("none"))
}

/// The same address without its path's final slash; `None` when there is none to take away.
fn without_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty())?;
    let mut parts = uri.clone().into_parts();
    let with_query = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    parts.path_and_query = Some(with_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A handler's panic is a bug like any other: its text goes to the log and no further.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => Error::Internal(format!("panic: {}", panic_text(&*panic))).into_response(),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Words an error in its dialect, and says to whom and why; everything else stays as it is.
fn worded(mut response: Response, path: &str) -> (Response, Option<(Author, String)>) {
    let Some(Failed(error)) = response.extensions_mut().remove::<Failed>() else { return (response, None) };
    let mut worded = render(&error, path, Micros::now());
    if let Some(matched) = response.extensions_mut().remove::<MatchedPath>() {
        worded.extensions_mut().insert(matched);
    }
    let by = response.extensions_mut().remove::<Author>();
    (worded, by.map(|by| (by, error.for_trail())))
}

/// Notes who was refused, and which changes failed. What failed by a fault of our own is in the log.
fn note_refusal(app: &App, method: &http::Method, by: &Author, response: &Response, why: &str) {
    let status = response.status().as_u16();
    let Some(route) = response.extensions().get::<MatchedPath>() else { return };
    let reads = [http::Method::GET, http::Method::HEAD].contains(method);
    if [401, 403, 429].contains(&status) || (!reads && (400..500).contains(&status)) {
        let object = format!("{} {}", method_label(method), route.as_str());
        app.audit.refused(by, Subject { action: Action::RequestRefused, object: &object }, status, why);
    }
}

fn count(method: &http::Method, path: Option<&MatchedPath>, status: u16, began: Instant) {
    // The router's path, not the client's: labels must not grow with what strangers ask for.
    let route = path.map_or("unknown", MatchedPath::as_str).to_owned();
    let labels = [("method", method_label(method)), ("route", route), ("status", status.to_string())];
    metrics::counter!("signet_http_requests_total", &labels).increment(1);
    metrics::histogram!("signet_http_request_seconds").record(began.elapsed().as_secs_f64());
}

fn method_label(method: &http::Method) -> String {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.into(),
        _ => "other".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_in_the_dialect_without_its_text() {
        for (path, body) in [
            ("/api/servers", r#"{"detail":"Internal Server Error"}"#),
            ("/api/v1/clusters/", r#"{"code":500,"message":"Internal Server Error","data":null}"#),
        ] {
            let (response, _) = worded(caught(async { panic!("the secret is {}", 42) }).await, path);
            assert_eq!(response.status(), 500);
            let bytes = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
            assert_eq!(bytes, body);
        }
    }

    #[test]
    fn one_final_slash_is_taken_away() {
        let case = |text: &str| without_slash(&text.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(case("/api/servers/?a=b/").as_deref(), Some("/api/servers?a=b/"));
        assert_eq!(case("/docs/").as_deref(), Some("/docs"));
        assert_eq!(case("/"), None);
        assert_eq!(case("/api"), None);
    }

    #[test]
    fn a_request_id_is_taken_over_only_when_it_is_plain() {
        let id = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(id(b"abc-1"), "abc-1");
        assert_ne!(id(b"a b"), "a b");
        assert_eq!(id(&b"x".repeat(REQUEST_ID_BYTES_MAX + 1)).len(), 36);
        assert_eq!(request_id(&HeaderMap::new()).len(), 36);
    }
}
