//! How each surface words its errors. Handlers return the domain's [`Error`]; the outermost layer renders it here, in
//! the dialect that the path belongs to, so that errors outside any route speak it too.

mod clusters;
mod fleet;
mod jobs;
mod pipelines;
mod releases;

pub use clusters::success;

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use signet_common::time::Micros;

use crate::error::Error;
use crate::limits::RETRY_AFTER_SECONDS;
use crate::store::StoreError;

/// What a field's message says when the field is missing; each dialect has its own word for it.
pub const REQUIRED: &str = "required";

/// What the documents themselves say about a field, to the letter: nothing is put before it.
pub mod texts {
    /// 002: `target_type` names no kind of target.
    pub const TARGET_TYPE: &str = "无效的目标类型";
    /// 002: a target that needs a name has none.
    pub const TARGET_MISSING: &str = "目标值缺失";
    /// 002: not an RSA public key in PEM.
    pub const PUBLIC_KEY: &str = "无效的公钥格式";
    /// 001: not an address for mail.
    pub const EMAIL: &str = "请输入有效的邮箱地址";
    /// Each of them.
    pub(super) const ALL: [&str; 4] = [TARGET_TYPE, TARGET_MISSING, PUBLIC_KEY, EMAIL];
}

/// One of the five documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// Servers, commands, tasks, keys, and all that belongs to no other.
    Fleet,
    /// Git deployments.
    Jobs,
    /// Pipelines and their users.
    Pipelines,
    /// Release approvals.
    Releases,
    /// Kubernetes clusters.
    Clusters,
}

/// The longest prefix wins; what matches none is [`Surface::Fleet`].
const PREFIXES: &[(&str, Surface)] = &[
    ("/api/v1/jobs", Surface::Jobs),
    ("/api/auth", Surface::Pipelines),
    ("/api/users", Surface::Pipelines),
    ("/api/pipelines", Surface::Pipelines),
    ("/api/pipeline-runs", Surface::Pipelines),
    ("/api/step-types", Surface::Pipelines),
    ("/api/v1/webhooks", Surface::Pipelines),
    ("/api/v1/system", Surface::Pipelines),
    ("/api/v1/integrations", Surface::Pipelines),
    ("/ws", Surface::Pipelines),
    ("/push", Surface::Releases),
    ("/query", Surface::Releases),
    ("/status", Surface::Releases),
    ("/api/v1", Surface::Clusters),
];

impl Surface {
    /// As in a token's scope.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Jobs => "jobs",
            Self::Pipelines => "pipelines",
            Self::Releases => "releases",
            Self::Clusters => "clusters",
        }
    }

    /// The surface that a path belongs to.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let covers = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let longest =
            PREFIXES.iter().filter(|(prefix, _)| covers(prefix)).max_by_key(|(prefix, _)| prefix.len());
        longest.map_or(Self::Fleet, |(_, surface)| *surface)
    }
}

/// An error on its way out of a handler, until [`render`] words it.
#[derive(Debug, Clone)]
pub struct Failed(pub Error);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(Failed(self));
        response
    }
}

/// What a renderer may look at.
struct Failure<'a> {
    status: StatusCode,
    error: &'a Error,
    /// The path as it was received, without query.
    path: &'a str,
    now: Micros,
}

impl Failure<'_> {
    /// The error's own words where the caller may see them; bugs and the database's texts are for the log alone.
    fn public(&self) -> String {
        match self.error {
            Error::Internal(_) => "Internal Server Error".into(),
            Error::Store(_) if self.status == StatusCode::SERVICE_UNAVAILABLE => {
                "the database is not reachable, try again later".into()
            }
            Error::Store(_) => "Internal Server Error".into(),
            error => error.to_string(),
        }
    }
}

fn status(surface: Surface, error: &Error) -> StatusCode {
    match error {
        Error::Invalid { .. } | Error::InvalidFields(_) if surface == Surface::Jobs => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Error::Invalid { .. } | Error::InvalidFields(_) => StatusCode::BAD_REQUEST,
        // Document 002 knows one status for bad input.
        Error::Unprocessable(_) if surface == Surface::Fleet => StatusCode::BAD_REQUEST,
        Error::Unprocessable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Unauthenticated | Error::Refused(_) => StatusCode::UNAUTHORIZED,
        Error::Forbidden(_) => StatusCode::FORBIDDEN,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
        Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
        Error::Unavailable { .. } | Error::Store(StoreError::Unavailable(_) | StoreError::Conflict(_)) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Store(_) | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The whole answer to a request that failed.
#[must_use]
pub fn render(error: &Error, path: &str, now: Micros) -> Response {
    let surface = Surface::of(path.strip_suffix('/').filter(|p| !p.is_empty()).unwrap_or(path));
    // Only one dialect has room for all; the others name the first.
    let first = match error {
        Error::InvalidFields(all) if surface != Surface::Jobs => {
            all.first().map(|(field, message)| Error::invalid(field, message))
        }
        _ => None,
    };
    let error = first.as_ref().unwrap_or(error);
    let failure = Failure { status: status(surface, error), error, path, now };
    if failure.status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(%error, "the request failed");
    }
    let body: Value = match surface {
        Surface::Fleet => fleet::body(&failure),
        Surface::Jobs => jobs::body(&failure),
        Surface::Pipelines => pipelines::body(&failure),
        Surface::Releases => releases::body(&failure),
        Surface::Clusters => clusters::body(&failure),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match error {
        Error::Unauthenticated | Error::Refused(_) => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Error::MethodNotAllowed(allow) => {
            headers.extend(HeaderValue::from_str(allow).ok().map(|allow| (ALLOW, allow)));
        }
        Error::TooManyRequests(seconds) | Error::Unavailable { retry_after: seconds, .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        Error::Store(_) if failure.status == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        _ => {}
    }
    (failure.status, headers, body.to_string()).into_response()
}

/// `hostname is required`, `limit: not a number`, or the message alone where it names the field itself or is a
/// document's own.
fn one_line(field: &str, message: &str) -> String {
    match (field, message) {
        ("", _) => message.to_owned(),
        (_, REQUIRED) => format!("{field} is required"),
        _ if texts::ALL.contains(&message) || message.starts_with(field) => message.to_owned(),
        _ => format!("{field}: {message}"),
    }
}

#[cfg(test)]
mod tests;
