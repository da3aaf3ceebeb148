//! Who asks too much, and who is not kept waiting for it.

use reqwest::Method;
use serde_json::{Value, json};
use signet_controller::settings::{Rates, Secret};
use signet_testkit::{Pair, eventually};

use super::support::{Answer, PATIENCE, TestApp};

const PASSWORD: &str = "correct horse battery";

async fn with(rates: Rates) -> TestApp {
    TestApp::start_with(Pair::SqliteMemory.parts().await, |settings| {
        settings.rates = rates;
        settings.admin_password = Some(Secret::new(PASSWORD));
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await
}

async fn with_token(app: &TestApp, token: &str, path: &str) -> Answer {
    TestApp::send(app.anonymous(Method::GET, path).bearer_auth(token)).await
}

/// Asks until it was too much.
async fn too_much(ask: impl AsyncFn() -> Answer) -> Answer {
    eventually(PATIENCE, "one request too many", async || {
        let answers = futures_util::future::join_all((0..20).map(|_| ask())).await;
        answers.into_iter().find(|answer| answer.status == 429)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_is_slowed_down_and_another_is_served() {
    let app = with(Rates { caller: 5, address: 0 }).await;
    let log_in = json!({"username": "admin", "password": PASSWORD});
    let token = app.post("/api/v1/auth/login", &log_in).await.expect(200)["data"]["token"].take();
    let token = token.as_str().unwrap();
    let bodies: [(&str, Value); 2] = [
        ("/api/servers", json!({"detail": "Too Many Requests"})),
        ("/api/v1/users", json!({"code": 429, "message": "Too Many Requests", "data": null})),
    ];
    for (path, body) in bodies {
        let answer = too_much(async || with_token(&app, token, path).await).await;
        let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert_eq!((wait, answer.json()), (1, body), "{path}");
        // The twin.
        assert_eq!(app.get("/api/servers").await.status, 200);
    }
    // It is only a pause.
    eventually(PATIENCE, "the token to count again", async || {
        (with_token(&app, token, "/api/servers").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_slowed_down_whatever_it_shows() {
    let app = with(Rates { caller: 0, address: 5 }).await;
    let from = async |address: &str, token: &str| {
        let request = app.anonymous(Method::GET, "/api/servers").header("x-forwarded-for", address);
        TestApp::send(request.bearer_auth(token)).await
    };
    // Guesses at tokens cost the guesser the same.
    too_much(async || from("203.0.113.7", "a-guess").await).await;
    assert_eq!(from("203.0.113.8", super::support::ADMIN_TOKEN).await.status, 200);
}
