//! Documentation, metrics, and several listeners.

use reqwest::Method;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;

on_both_pairs!(
    the_documentation_needs_nothing_from_elsewhere,
    metrics_show_how_things_stand,
    every_listener_serves_everything,
);

async fn the_documentation_needs_nothing_from_elsewhere(pair: Pair) {
    let app = TestApp::start(pair).await;
    for path in ["/docs", "/api/docs/", "/api/schema/swagger-ui/"] {
        let page = TestApp::send(app.anonymous(Method::GET, path)).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        assert!(!page.text.contains("://"), "{path} names another place");
        let sources: Vec<&str> = page.text.split('"').filter(|part| part.starts_with("/docs/")).collect();
        assert!(sources.len() >= 5, "{path}: {sources:?}");
        for source in sources {
            let asset = TestApp::send(app.anonymous(Method::GET, source)).await;
            assert_eq!(asset.status, 200, "{source}");
            assert!(asset.headers.contains_key("content-type"), "{source}");
        }
    }
    let initializer = TestApp::send(app.anonymous(Method::GET, "/docs/swagger-initializer.js")).await;
    assert!(initializer.text.contains("/openapi.json"), "{}", initializer.text);
    assert_eq!(TestApp::send(app.anonymous(Method::GET, "/docs/nothing.js")).await.status, 404);
    let home = TestApp::send(app.anonymous(Method::GET, "/")).await;
    assert!(home.text.contains("href=\"/docs\""));
}

async fn metrics_show_how_things_stand(pair: Pair) {
    let app = TestApp::start(pair).await;
    app.get("/api/servers").await.expect(200);
    let text = TestApp::send(app.anonymous(Method::GET, "/metrics")).await.text;
    let has = |line: &str| assert!(text.lines().any(|l| l.starts_with(line)), "{line}\n{text}");
    has("signet_database_up 1");
    has("signet_bus_up 1");
    has("signet_agents_online 0");
    has("signet_deliveries{state=\"waiting\"} 0");
    assert!(!text.contains("signet_deliveries{state=\"lost\"}"), "what ended is history");
    has("signet_parked_reports 0");
    has("signet_dispatch_paused 0");
    has("signet_intake_waiting{queue=\"reports\"}");
    has("signet_http_requests_total{method=\"GET\",route=\"/api/servers\",status=\"200\"}");
    has("# HELP signet_deliveries");
}

async fn every_listener_serves_everything(pair: Pair) {
    let two = |settings: &mut signet_controller::settings::Settings| {
        settings.listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    };
    let app = TestApp::start_with(pair.parts().await, two).await;
    assert_eq!(app.running.addrs.len(), 2);
    for address in &app.running.addrs {
        let answer = reqwest::get(format!("http://{address}/api/health")).await.unwrap();
        assert_eq!(answer.text().await.unwrap(), r#"{"status":"ok"}"#, "{address}");
    }
    // Idle connections do not hold up the end.
    let TestApp { running, .. } = app;
    running.stop().await.unwrap();
}
