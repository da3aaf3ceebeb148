use super::*;

#[test]
fn the_longest_prefix_names_the_surface() {
    for (prefix, surface) in PREFIXES {
        assert_eq!(Surface::of(prefix), *surface, "{prefix}");
        assert_eq!(Surface::of(&format!("{prefix}/x")), *surface, "{prefix}/x");
        let beside = format!("{prefix}x");
        let parent = if beside.starts_with("/api/v1/") { Surface::Clusters } else { Surface::Fleet };
        assert_eq!(Surface::of(&beside), parent, "{beside}");
    }
    for path in ["/", "/api", "/api/servers", "/api/health", "/docs", "/api/v2", "/api/agents/hello", "/wsx"]
    {
        assert_eq!(Surface::of(path), Surface::Fleet, "{path}");
    }
    for path in ["/api/v1/auth/login", "/api/v1/users", "/api/v1/clusters", "/api/v1/anything"] {
        assert_eq!(Surface::of(path), Surface::Clusters, "{path}");
    }
}

/// One path of each surface.
const PATHS: [&str; 5] = ["/api/servers", "/api/v1/jobs", "/api/pipelines/", "/query", "/api/v1/clusters"];

async fn rendered(error: &Error) -> Vec<(u16, String)> {
    let mut all = Vec::new();
    for path in PATHS {
        let response = render(error, path, Micros(0));
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        all.push((status, String::from_utf8(body.to_vec()).unwrap()));
    }
    all
}

fn pipelines(code: &str, message: &str, details: &str) -> String {
    format!(
        r#"{{"error":{{"code":"{code}","message":"{message}","details":{details}}},"timestamp":"1970-01-01T00:00:00Z","path":"/api/pipelines/"}}"#
    )
}

/// Status and body of every variant on every surface: fleet, jobs, pipelines, releases, clusters.
#[allow(clippy::too_many_lines, reason = "a table: one row for each variant, and nothing but rows")]
#[tokio::test]
async fn every_error_speaks_every_dialect() {
    let jobs = |code: &str, message: &str, details: &str| {
        format!(r#"{{"ok":false,"error":{{"code":"{code}","message":"{message}","details":{details}}}}}"#)
    };
    let clusters =
        |code: u16, message: &str| format!(r#"{{"code":{code},"message":"{message}","data":null}}"#);
    let fleet = |text: &str| format!(r#"{{"detail":"{text}"}}"#);
    let releases = |text: &str| format!(r#"{{"error":"{text}"}}"#);
    let away = "the database is not reachable, try again later";
    let cases = [
        (
            Error::invalid("name", REQUIRED),
            [
                (400, fleet("name is required")),
                (422, jobs("VALIDATION_ERROR", "Request validation failed", r#"{"name":"required"}"#)),
                (400, pipelines("VALIDATION_ERROR", "请求数据验证失败", r#"{"name":["此字段不能为空"]}"#)),
                (400, r#"{"error":"无效的请求数据","field":"name"}"#.into()),
                (400, clusters(400, "Invalid request parameter: name is required")),
            ],
        ),
        (
            Error::invalid("target", "无效的目标类型"),
            [
                (400, fleet("无效的目标类型")),
                (
                    422,
                    jobs("VALIDATION_ERROR", "Request validation failed", r#"{"target":"无效的目标类型"}"#),
                ),
                (400, pipelines("VALIDATION_ERROR", "请求数据验证失败", r#"{"target":["无效的目标类型"]}"#)),
                (400, r#"{"error":"无效的请求数据","field":"target"}"#.into()),
                (400, clusters(400, "Invalid request parameter: 无效的目标类型")),
            ],
        ),
        (
            Error::Unauthenticated,
            [
                (401, fleet("Not authenticated")),
                (401, jobs("UNAUTHORIZED", "Not authenticated", "{}")),
                (401, pipelines("AUTHENTICATION_ERROR", "认证失败", "{}")),
                (401, releases("暂无任务，未认证")),
                (401, clusters(401, "Not authenticated")),
            ],
        ),
        (
            Error::Forbidden("not yours".into()),
            [
                (403, fleet("not yours")),
                (403, jobs("FORBIDDEN", "not yours", "{}")),
                (403, pipelines("PERMISSION_DENIED", "权限不足", "{}")),
                (403, releases("not yours")),
                (403, clusters(403, "not yours")),
            ],
        ),
        (
            Error::NotFound("Not Found".into()),
            [
                (404, fleet("Not Found")),
                (404, jobs("NOT_FOUND", "Not Found", "{}")),
                (404, pipelines("RESOURCE_NOT_FOUND", "资源不存在", "{}")),
                (404, releases("Not Found")),
                (404, clusters(404, "Not Found")),
            ],
        ),
        (
            Error::Conflict("taken".into()),
            [
                (409, fleet("taken")),
                (409, jobs("CONFLICT", "taken", "{}")),
                (409, pipelines("RESOURCE_CONFLICT", "资源冲突", r#"{"non_field_errors":["taken"]}"#)),
                (409, releases("taken")),
                (409, clusters(409, "taken")),
            ],
        ),
        (
            Error::Unprocessable("no".into()),
            [
                (400, fleet("no")),
                (422, jobs("VALIDATION_ERROR", "no", "{}")),
                (422, pipelines("VALIDATION_ERROR", "请求数据验证失败", r#"{"non_field_errors":["no"]}"#)),
                (422, releases("no")),
                (422, clusters(422, "no")),
            ],
        ),
        (
            Error::MethodNotAllowed("GET".into()),
            [
                (405, fleet("Method Not Allowed")),
                (405, jobs("METHOD_NOT_ALLOWED", "Method Not Allowed", "{}")),
                (405, pipelines("METHOD_NOT_ALLOWED", "请求方法不允许", "{}")),
                (405, releases("仅支持 POST")),
                (405, clusters(405, "Method Not Allowed")),
            ],
        ),
        (
            Error::TooLarge("too much".into()),
            [
                (413, fleet("too much")),
                (413, jobs("PAYLOAD_TOO_LARGE", "too much", "{}")),
                (413, pipelines("PAYLOAD_TOO_LARGE", "请求体过大", "{}")),
                (413, releases("too much")),
                (413, clusters(413, "too much")),
            ],
        ),
        (
            Error::UnsupportedMediaType("text/plain".into()),
            [
                (415, fleet("text/plain")),
                (415, jobs("UNSUPPORTED_MEDIA_TYPE", "text/plain", "{}")),
                (415, pipelines("UNSUPPORTED_MEDIA_TYPE", "不支持的媒体类型", "{}")),
                (415, releases("text/plain")),
                (415, clusters(415, "text/plain")),
            ],
        ),
        (
            Error::TooManyRequests(7),
            [
                (429, fleet("Too Many Requests")),
                (429, jobs("RATE_LIMITED", "Too Many Requests", "{}")),
                (429, pipelines("RATE_LIMIT_EXCEEDED", "请求频率超限", "{}")),
                (429, releases("暂无任务，服务暂时不可用")),
                (429, clusters(429, "Too Many Requests")),
            ],
        ),
        (
            StoreError::Unavailable("10.0.0.1 refused".into()).into(),
            [
                (503, fleet(away)),
                (503, jobs("UNAVAILABLE", away, "{}")),
                (503, pipelines("SERVICE_UNAVAILABLE", "服务暂时不可用", "{}")),
                (503, releases("暂无任务，服务暂时不可用")),
                (503, clusters(503, away)),
            ],
        ),
        (
            Error::Internal("the secret is 42".into()),
            [
                (500, fleet("Internal Server Error")),
                (500, jobs("INTERNAL_ERROR", "Internal Server Error", "{}")),
                (500, pipelines("INTERNAL_ERROR", "内部服务器错误", "{}")),
                (500, releases("暂无任务，服务暂时不可用")),
                (500, clusters(500, "Internal Server Error")),
            ],
        ),
    ];
    for (error, expected) in cases {
        assert_eq!(rendered(&error).await, expected, "{error:?}");
    }
    let bug = Error::Store(StoreError::Failed("SELECT secret".into()));
    assert_eq!(rendered(&bug).await, rendered(&Error::Internal(String::new())).await);
}

#[test]
fn headers_go_with_the_status() {
    let header = |error: &Error, name| {
        render(error, "/api/servers", Micros(0)).headers().get(name).map(|v| v.to_str().unwrap().to_owned())
    };
    assert_eq!(header(&Error::Unauthenticated, WWW_AUTHENTICATE).as_deref(), Some("Bearer"));
    assert_eq!(header(&Error::MethodNotAllowed("GET, HEAD".into()), ALLOW).as_deref(), Some("GET, HEAD"));
    assert_eq!(header(&Error::TooManyRequests(7), RETRY_AFTER).as_deref(), Some("7"));
    assert!(header(&StoreError::Conflict(String::new()).into(), RETRY_AFTER).is_some());
    assert_eq!(header(&Error::Internal(String::new()), RETRY_AFTER), None);
}

#[tokio::test]
async fn a_message_in_another_script_still_names_its_field() {
    let message = "invalid type: string \"三十\", expected i64";
    let all = rendered(&Error::invalid("timeout", message)).await;
    let detail: Value = serde_json::from_str(&all[0].1).unwrap();
    assert_eq!(detail["detail"], format!("timeout: {message}"));
}
