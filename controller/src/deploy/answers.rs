//! How the surface answers: its envelope, and the pages of its lists.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::{JOBS_LIMIT, JOBS_LIMIT_MAX};

/// A good answer in the document's envelope.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Good<T> {
    /// Always true.
    ok: bool,
    /// What was asked for.
    data: T,
}

/// In an answer.
pub(super) fn good<T: Serialize>(status: StatusCode, data: T) -> Response {
    (status, axum::Json(Good { ok: true, data })).into_response()
}

/// Page and its size.
pub(super) fn page(
    page: Option<&str>,
    size: Option<&str>,
    wrong: &mut Vec<(String, String)>,
) -> (usize, usize) {
    let mut whole = |name: &str, text: Option<&str>, default: usize| match text.map(str::parse) {
        None => default,
        Some(Ok(n)) if n >= 1 => n,
        Some(_) => {
            wrong.push((name.to_owned(), "must be a whole number from 1".to_owned()));
            default
        }
    };
    (whole("page", page, 1), whole("page_size", size, JOBS_LIMIT).min(JOBS_LIMIT_MAX))
}
