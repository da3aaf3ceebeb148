//! Document 003: `{"code", "message", "data": null}`; the code is the HTTP status.

use serde_json::{Value, json};

use super::{Failure, one_line};
use crate::error::Error;

pub(super) fn body(failure: &Failure<'_>) -> Value {
    let message = match failure.error {
        Error::Invalid { field, message } => {
            format!("Invalid request parameter: {}", one_line(field, message))
        }
        _ => failure.public(),
    };
    json!({ "code": failure.status.as_u16(), "message": message, "data": null })
}
