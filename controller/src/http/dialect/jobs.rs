//! Document 004: `{"ok": false, "error": {"code", "message", "details"}}`.

use serde_json::{Value, json};

use super::Failure;
use crate::error::Error;

pub(super) fn body(failure: &Failure<'_>) -> Value {
    let code = match failure.status.as_u16() {
        401 => "UNAUTHORIZED",
        403 => "FORBIDDEN",
        404 => "NOT_FOUND",
        405 => "METHOD_NOT_ALLOWED",
        409 => "CONFLICT",
        413 => "PAYLOAD_TOO_LARGE",
        415 => "UNSUPPORTED_MEDIA_TYPE",
        422 => "VALIDATION_ERROR",
        429 => "RATE_LIMITED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL_ERROR",
    };
    let (message, details) = match failure.error {
        Error::Invalid { field, message } if field.is_empty() => (message.clone(), json!({})),
        Error::Invalid { field, message } => ("Request validation failed".into(), json!({ field: message })),
        Error::InvalidFields(all) => {
            let fields = all.iter().map(|(field, message)| (field.clone(), json!(message)));
            ("Request validation failed".into(), Value::Object(fields.collect()))
        }
        _ => (failure.public(), json!({})),
    };
    json!({ "ok": false, "error": { "code": code, "message": message, "details": details } })
}
