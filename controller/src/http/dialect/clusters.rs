//! Document 003: `{"code", "message", "data": null}`; the code is the HTTP status.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, one_line};
use crate::error::Error;

/// A good answer: code 0 around its data.
#[derive(Serialize)]
struct Success<'a, T> {
    code: u16,
    message: &'static str,
    data: &'a T,
}

/// A good answer in the document's envelope.
#[must_use]
pub fn success<T: Serialize>(status: StatusCode, data: &T) -> Response {
    (status, axum::Json(Success { code: 0, message: "success", data })).into_response()
}

pub(super) fn body(failure: &Failure<'_>) -> Value {
    let message = match failure.error {
        Error::Invalid { field, message } => {
            format!("Invalid request parameter: {}", one_line(field, message))
        }
        _ => failure.public(),
    };
    json!({ "code": failure.status.as_u16(), "message": message, "data": null })
}
