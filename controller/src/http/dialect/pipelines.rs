//! Document 001: `{"error": {"code", "message", "details"}, "timestamp", "path"}`, in Chinese.

use serde_json::{Value, json};

use super::{Failure, REQUIRED};
use crate::error::Error;

pub(super) fn body(failure: &Failure<'_>) -> Value {
    let (code, message) = match failure.status.as_u16() {
        400 | 422 => ("VALIDATION_ERROR", "请求数据验证失败"),
        401 => ("AUTHENTICATION_ERROR", "认证失败"),
        403 => ("PERMISSION_DENIED", "权限不足"),
        404 => ("RESOURCE_NOT_FOUND", "资源不存在"),
        405 => ("METHOD_NOT_ALLOWED", "请求方法不允许"),
        409 => ("RESOURCE_CONFLICT", "资源冲突"),
        413 => ("PAYLOAD_TOO_LARGE", "请求体过大"),
        415 => ("UNSUPPORTED_MEDIA_TYPE", "不支持的媒体类型"),
        429 => ("RATE_LIMIT_EXCEEDED", "请求频率超限"),
        503 => ("SERVICE_UNAVAILABLE", "服务暂时不可用"),
        _ => ("INTERNAL_ERROR", "内部服务器错误"),
    };
    let details = match failure.error {
        Error::Invalid { field, message } if message == REQUIRED => json!({ field: ["此字段不能为空"] }),
        Error::Invalid { field, message } if !field.is_empty() => json!({ field: [message] }),
        Error::Invalid { message, .. } | Error::Unprocessable(message) | Error::Conflict(message) => {
            json!({ "non_field_errors": [message] })
        }
        _ => json!({}),
    };
    json!({
        "error": { "code": code, "message": message, "details": details },
        "timestamp": failure.now.rfc3339(),
        "path": failure.path,
    })
}
