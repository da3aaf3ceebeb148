//! Document 002: `{"detail": "…"}`.

use serde_json::{Value, json};

use super::{Failure, one_line};
use crate::error::Error;

pub(super) fn body(failure: &Failure<'_>) -> Value {
    let detail = match failure.error {
        Error::Invalid { field, message } => one_line(field, message),
        _ => failure.public(),
    };
    json!({ "detail": detail })
}
