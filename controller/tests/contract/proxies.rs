//! Who is asking, behind a proxy that is trusted and from one that is not.

use reqwest::Method;
use serde_json::json;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::fake_agent::FakeAgent;
use crate::support::{Answer, TestApp};

on_both_pairs!(only_loopback_reads_metrics_without_a_token, a_host_has_the_address_that_the_proxy_names);

async fn behind_a_proxy(pair: Pair) -> TestApp {
    let trusted = |settings: &mut signet_controller::settings::Settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    };
    TestApp::start_with(pair.parts().await, trusted).await
}

async fn metrics(app: &TestApp, forwarded: &str, token: bool) -> Answer {
    let request = match token {
        true => app.request(Method::GET, "/metrics"),
        false => app.anonymous(Method::GET, "/metrics"),
    };
    TestApp::send(request.header("x-forwarded-for", forwarded)).await
}

async fn only_loopback_reads_metrics_without_a_token(pair: Pair) {
    let app = behind_a_proxy(pair).await;
    assert_eq!(TestApp::send(app.anonymous(Method::GET, "/metrics")).await.status, 200);
    for elsewhere in ["192.0.2.9", "2001:db8::9", "127.0.0.1, 192.0.2.9"] {
        let refused = metrics(&app, elsewhere, false).await;
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        assert_eq!(refused.expect(401), json!({ "detail": "Not authenticated" }), "{elsewhere}");
        assert_eq!(metrics(&app, elsewhere, true).await.status, 200, "{elsewhere}");
    }
    // Nobody else's header is believed.
    let app = TestApp::start(pair).await;
    assert_eq!(metrics(&app, "127.0.0.1", false).await.status, 401);
}

async fn a_host_has_the_address_that_the_proxy_names(pair: Pair) {
    let app = behind_a_proxy(pair).await;
    let agent = FakeAgent::new(&app, "server1", "web").await;
    let hello = agent.draft(&app).await;
    let signed =
        signet_common::Envelope::sign(&agent.key, signet_common::PayloadType::Hello, &hello).unwrap();
    let request = app.anonymous(Method::POST, "/api/agents/hello").json(&signed.to_dsse());
    TestApp::send(request.header("x-forwarded-for", "192.0.2.9")).await.expect(200);
    assert_eq!(app.get("/api/servers/server1").await.expect(200)["ip"], "192.0.2.9");
}
