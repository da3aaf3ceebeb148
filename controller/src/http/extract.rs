//! What handlers take in. Everything that is wrong becomes an [`Error`], never a plain text of the framework's.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::de::DeserializeOwned;
use signet_common::time::Micros;

pub use super::auth::Caller;
use super::dialect::{REQUIRED, Surface};
pub use super::edge::Peer;
pub use crate::audit::Author;
use crate::error::Error;
use crate::limits::BODY_SECONDS_MAX;

impl<S: Sync> FromRequestParts<S> for Author {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get().cloned().ok_or_else(|| Error::Internal("the request has no author".into()))
    }
}

/// A JSON body. Unknown fields are ignored, nothing is coerced; an absent content type counts as JSON.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let bytes = JsonBytes::from_request(request, state).await?;
        bytes.parse().map(Self)
    }
}

/// The exact bytes of a JSON body, for handlers that also need a digest of them.
#[derive(Debug, Clone)]
pub struct JsonBytes(pub Bytes);

impl JsonBytes {
    /// What [`Json`] does.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let mut reader = serde_json::Deserializer::from_slice(&self.0);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|e| wrong_json(&e))?;
        reader.end().map_err(|_| Error::invalid("body", "invalid JSON"))?;
        Ok(value)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let media_type = request.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        if Surface::of(request.uri().path()) != Surface::Releases && !media_type.is_none_or(is_json) {
            let text = "the body must be application/json";
            return Err(Error::UnsupportedMediaType(text.into()));
        }
        body(request, state).await.map(Self)
    }
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The whole body, within the route's limit.
///
/// # Errors
/// [`Error::TooLarge`], or [`Error::Invalid`] when the client breaks off or takes too long.
pub async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Error> {
    body_within(Duration::from_secs(BODY_SECONDS_MAX), request, state).await
}

async fn body_within<S: Send + Sync>(limit: Duration, request: Request, state: &S) -> Result<Bytes, Error> {
    let read = tokio::time::timeout(limit, Bytes::from_request(request, state)).await;
    let read = read.map_err(|_| Error::invalid("body", "the body took too long to come"))?;
    read.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Error::TooLarge("the body is larger than allowed here".into())
        }
        _ => Error::invalid("body", "the body could not be read"),
    })
}

fn wrong_json(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let inner = error.inner();
    if !inner.is_data() {
        return Error::invalid("body", "invalid JSON");
    }
    let text = inner.to_string();
    // serde_json ends its messages with the position, which says nothing to whoever sent one line.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    wrong_field(&error.path().to_string(), text)
}

/// Names the field: serde reports a missing one at its parent.
fn wrong_field(path: &str, text: &str) -> Error {
    let parent = if path == "." { "" } else { path };
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match missing {
        Some(name) if parent.is_empty() => Error::invalid(name, REQUIRED),
        Some(name) => Error::invalid(format!("{parent}.{name}"), REQUIRED),
        None if parent.is_empty() => Error::invalid("body", text),
        None => Error::invalid(parent, text),
    }
}

/// A field that must not be empty.
///
/// # Errors
/// [`Error::Invalid`], naming the field.
pub fn given(field: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() { Err(Error::invalid(field, REQUIRED)) } else { Ok(()) }
}

/// A field that is a moment, if it is there.
///
/// # Errors
/// [`Error::Invalid`], naming the field.
pub fn moment(field: &str, text: Option<&str>) -> Result<Option<Micros>, Error> {
    let wrong = || Error::invalid(field, format!("{field} must be an RFC 3339 time"));
    text.map(|text| Micros::parse_rfc3339(text).ok_or_else(wrong)).transpose()
}

/// The query's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let found = axum::extract::Query::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = rejection.body_text();
            let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            match text.split_once(": ") {
                Some((field, message)) if !field.contains(' ') => wrong_field(field, message),
                _ => wrong_field("", text),
            }
        })?;
        Ok(Self(found.0))
    }
}

/// The variable parts of the path. One that is malformed names nothing: 404, and 400 on the clusters surface.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(found) => Ok(Self(found.0)),
            Err(rejection) if Surface::of(parts.uri.path()) == Surface::Clusters => {
                Err(Error::invalid("", rejection.body_text()))
            }
            Err(_) => Err(Error::NotFound("Not Found".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(rename = "port")]
        _port: u16,
    }

    #[derive(Debug, Deserialize)]
    struct Body {
        #[serde(rename = "name")]
        _name: String,
        timeout: Option<u32>,
        #[serde(default, rename = "targets")]
        _targets: Vec<Inner>,
    }

    fn parse(text: &str) -> Result<Body, Error> {
        JsonBytes(Bytes::copy_from_slice(text.as_bytes())).parse()
    }

    #[test]
    fn an_error_names_its_field() {
        let cases = [
            (r#"{}"#, "name", REQUIRED),
            (r#"{"name":1}"#, "name", "invalid type: integer `1`, expected a string"),
            (r#"{"name":"a","timeout":"30"}"#, "timeout", "invalid type: string \"30\", expected u32"),
            (r#"{"name":"a","targets":[{"port":1},{}]}"#, "targets[1].port", REQUIRED),
            (r#"{"name":"a"} x"#, "body", "invalid JSON"),
            (r#"{"name":"#, "body", "invalid JSON"),
            ("", "body", "invalid JSON"),
            ("[]", "body", "invalid length 0, expected struct Body with 3 elements"),
        ];
        for (text, field, message) in cases {
            match parse(text).unwrap_err() {
                Error::Invalid { field: f, message: m } => {
                    assert_eq!((f.as_str(), m.as_str()), (field, message), "{text}")
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn null_is_absent_and_unknown_fields_are_ignored() {
        assert!(parse(r#"{"name":"a","timeout":null,"more":[1]}"#).unwrap().timeout.is_none());
    }

    #[tokio::test]
    async fn a_query_names_its_field() {
        #[derive(Debug, Deserialize)]
        struct Page {
            #[serde(rename = "limit")]
            _limit: Option<u32>,
        }
        let (mut parts, ()) = http::Request::get("/x?limit=many").body(()).unwrap().into_parts();
        match Query::<Page>::from_request_parts(&mut parts, &()).await.unwrap_err() {
            Error::Invalid { field, .. } => assert_eq!(field, "limit"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up_on() {
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(axum::body::Body::from_stream(never));
        match body_within(Duration::from_millis(10), request, &()).await.unwrap_err() {
            Error::Invalid { field, .. } => assert_eq!(field, "body"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn json_has_many_names() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["text/plain", "application/x-www-form-urlencoded", "", "json"] {
            assert!(!is_json(no), "{no}");
        }
    }
}
