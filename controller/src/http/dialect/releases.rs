//! Document 000: `{"error": "…"}`, in Chinese.

use serde_json::{Value, json};

use super::Failure;
use crate::error::Error;

pub(super) fn body(failure: &Failure<'_>) -> Value {
    // The document's polling loop takes every answer to `/query` without these words for a task.
    let no_task = if failure.path.starts_with("/query") { "暂无任务，" } else { "" };
    match (failure.error, failure.status.as_u16()) {
        (Error::Invalid { field, .. }, _) if field.is_empty() => json!({ "error": "无效的请求数据" }),
        (Error::Invalid { field, .. }, _) => json!({ "error": "无效的请求数据", "field": field }),
        (_, 401) => json!({ "error": format!("{no_task}未认证") }),
        (_, 405) => json!({ "error": "仅支持 POST" }),
        (_, 429 | 500..) => json!({ "error": format!("{no_task}服务暂时不可用") }),
        _ => json!({ "error": failure.public() }),
    }
}
