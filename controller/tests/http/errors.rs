//! Errors as clients see them, and which comes first.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signet_controller::http::permissions::{Need, ROUTES};
use signet_testkit::{Pair, on_both_pairs};

use crate::support::{ADMIN_TOKEN, TestApp};

on_both_pairs!(
    every_surface_has_its_dialect_outside_of_routes,
    checks_come_in_the_fixed_order,
    nothing_is_open_that_the_table_does_not_open,
    both_forms_of_a_path_are_served,
    requests_have_ids,
);

async fn every_surface_has_its_dialect_outside_of_routes(pair: Pair) {
    let app = TestApp::start(pair).await;
    let jobs = json!({"ok": false, "error": {"code": "NOT_FOUND", "message": "Not Found", "details": {}}});
    let cases = [
        ("/api/nothing", json!({"detail": "Not Found"})),
        ("/nothing", json!({"detail": "Not Found"})),
        ("/api/v1/jobs/1/nothing", jobs),
        ("/push/x", json!({"error": "Not Found"})),
        ("/api/v1/nothing", json!({"code": 404, "message": "Not Found", "data": null})),
    ];
    for (path, body) in cases {
        assert_eq!(app.get(path).await.expect(404), body, "{path}");
    }
    let pipelines = app.get("/api/pipelines/nothing/").await.expect(404);
    assert_eq!(pipelines["error"]["code"], "RESOURCE_NOT_FOUND");
    assert_eq!(pipelines["path"], "/api/pipelines/nothing/");
    assert!(pipelines["timestamp"].as_str().unwrap().ends_with('Z'));
}

async fn checks_come_in_the_fixed_order(pair: Pair) {
    let app = TestApp::start(pair).await;
    let send = TestApp::send;
    // Path before credential, method before credential.
    assert_eq!(send(app.anonymous(Method::GET, "/api/nothing")).await.status, 404);
    let wrong = send(app.anonymous(Method::PUT, "/api/servers")).await;
    assert_eq!(wrong.headers["allow"], "GET, HEAD, POST");
    assert_eq!(wrong.expect(405), json!({"detail": "Method Not Allowed"}));
    // Credential before size, type and body.
    let large = "x".repeat(3 * 1024 * 1024);
    let none = send(app.anonymous(Method::POST, "/api/servers").body("{")).await;
    assert_eq!(none.headers["www-authenticate"], "Bearer");
    assert_eq!(none.expect(401), json!({"detail": "Not authenticated"}));
    // Size, type, syntax, fields, state.
    let post = |body: String| app.request(Method::POST, "/api/servers").body(body);
    assert_eq!(send(post(large)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let typed = send(post("{}".into()).header("content-type", "text/plain")).await;
    assert_eq!(typed.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(send(post("{".into())).await.expect(400), json!({"detail": "body: invalid JSON"}));
    let missing = send(post(r#"{"ip":"10.0.0.1"}"#.into())).await;
    assert_eq!(missing.expect(400), json!({"detail": "hostname is required"}));
    let coerced = send(post(r#"{"hostname":7,"ip":"10.0.0.1"}"#.into())).await.expect(400);
    assert!(coerced["detail"].as_str().unwrap().starts_with("hostname: "), "{coerced}");
    // An absent content type is JSON; unknown fields are ignored; null is absent.
    let body = r#"{"hostname":"Web-1","ip":"10.0.0.1","group":null,"more":1}"#;
    let made = send(post(body.into())).await.expect(201);
    assert_eq!((&made["hostname"], &made["group"]), (&json!("web-1"), &json!("default")));
    assert_eq!(send(post(body.into())).await.expect(409), json!({"detail": "主机名已存在"}));
}

async fn nothing_is_open_that_the_table_does_not_open(pair: Pair) {
    let app = TestApp::start(pair).await;
    for (method, path, need) in ROUTES {
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        let bare = TestApp::send(app.anonymous(method.clone(), &path)).await;
        let wrong = app.anonymous(method.clone(), &path).header("x-api-key", "wrong");
        let wrong = TestApp::send(wrong).await;
        let open = matches!(need, Need::Static | Need::Public | Need::LoopbackOrRead);
        for answer in [bare, wrong] {
            assert_eq!(
                answer.status != 401 || path.ends_with("/hello"),
                open,
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    // From behind a proxy, a loopback address is nobody's word.
    let proxied = app.anonymous(Method::GET, "/metrics").header("x-forwarded-for", "127.0.0.1");
    assert_eq!(TestApp::send(proxied).await.status, 401);
    let keyed = app.anonymous(Method::GET, "/api/servers").header("x-api-key", ADMIN_TOKEN);
    assert_eq!(TestApp::send(keyed).await.expect(200), json!([]));
}

async fn both_forms_of_a_path_are_served(pair: Pair) {
    let app = TestApp::start(pair).await;
    for path in ["/api/health", "/api/health/", "/docs", "/docs/", "/api/docs/", "/api/schema/swagger-ui/"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    assert_eq!(app.get("/api/health/").await.text, r#"{"status":"ok"}"#);
    assert_eq!(app.get("/api/servers/?limit=1").await.expect(200), json!([]));
    let head = TestApp::send(app.request(Method::HEAD, "/api/servers")).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    let head = TestApp::send(app.request(Method::HEAD, "/api/nothing")).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::NOT_FOUND, ""));
}

async fn requests_have_ids(pair: Pair) {
    let app = TestApp::start(pair).await;
    let given = app.request(Method::GET, "/api/servers").header("x-request-id", "abc-1");
    assert_eq!(TestApp::send(given).await.headers["x-request-id"], "abc-1");
    let odd = app.request(Method::GET, "/api/nothing").header("x-request-id", "a b");
    assert_eq!(TestApp::send(odd).await.headers["x-request-id"].len(), 36);
    let listed: Value = app.get("/openapi.json").await.expect(200);
    assert!(listed["paths"].as_object().unwrap().contains_key("/api/commands"));
}
