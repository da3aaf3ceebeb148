//! Join tokens: whom they let in and whom they don't. Each refusal has a twin that differs in the one thing and succeeds.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use signet_common::messages::Standing;
use signet_testkit::{Pair, on_both_pairs};

use super::server;
use super::support::TestApp;
use super::support::fake_agent::FakeAgent;

on_both_pairs!(
    a_token_is_shown_once_and_listed_without_its_secret,
    a_token_lets_hosts_into_its_group_alone,
    a_token_lets_in_hosts_whose_name_fits,
    a_token_lets_in_as_many_as_it_says_and_each_agent_counts_once,
    of_many_at_once_one_gets_the_last_use,
    an_expired_token_lets_nobody_in,
    a_revoked_token_lets_nobody_in,
    a_token_that_pins_another_controller_key_is_void,
    a_proof_with_another_secret_is_refused,
);

/// What everyone hears whom a token does not let in.
const STRANGER: &str = "this key is not known here, and no valid join token came with it";

async fn token(app: &TestApp, body: Value) -> Value {
    app.post("/api/join-tokens", &body).await.expect(201)
}

/// What the list says of a token.
async fn listed(app: &TestApp, token: &Value) -> Value {
    let all = app.get("/api/join-tokens").await.expect(200);
    all.as_array().unwrap().iter().find(|t| t["id"] == token["id"]).unwrap().clone()
}

/// A host that is new and has this token.
async fn stranger(app: &TestApp, host: &str, group: Option<&str>, token: &Value) -> FakeAgent {
    let mut agent = FakeAgent::new(app, host, "").await;
    agent.group = group.map(str::to_owned);
    agent.join = token["token"].as_str().unwrap().parse().unwrap();
    agent
}

async fn joins(app: &TestApp, agent: &mut FakeAgent) {
    assert_eq!(agent.hello(app).await.standing, Standing::Accepted);
}

async fn is_refused(app: &TestApp, agent: &FakeAgent) {
    let answer = agent.say(app, &agent.draft(app).await).await.expect(401);
    assert_eq!(answer["detail"], STRANGER);
    assert_eq!(app.get(&format!("/api/servers/{}", agent.hostname)).await.status, 404);
}

async fn a_token_is_shown_once_and_listed_without_its_secret(pair: Pair) {
    let app = TestApp::start(pair).await;
    let made = token(&app, json!({"group": "web", "hostname": "Web-*", "uses": 3, "expires_in": 60})).await;
    let text = made["token"].as_str().unwrap();
    let [id, secret, fingerprint] = text.split('.').collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!((made["id"].as_str(), made["fingerprint"].as_str()), (Some(id), Some(fingerprint)));
    let key = app.running.app.keys.fleet().unwrap().keyring().clone();
    assert_eq!(fingerprint, key.current().id().as_str());
    let list = app.get("/api/join-tokens").await;
    assert!(!list.text.contains(secret));
    let seen = listed(&app, &made).await;
    assert_eq!((&seen["group"], &seen["hostname"]), (&json!("web"), &json!("web-*")));
    assert_eq!((&seen["uses"], &seen["uses_left"]), (&json!(3), &json!(3)));
    assert_eq!((&seen["state"], &seen["created_by"]), (&json!("open"), &json!("admin")));
    for bad in [
        json!({"group": ""}),
        json!({"hostname": "a b"}),
        json!({"hostname": ""}),
        json!({"uses": 0}),
        json!({"uses": 100_001}),
        json!({"expires_in": 0}),
        json!({"expires_in": 366 * 86_400 + 1}),
        json!({"groupp": "web"}),
        json!({"group": "web", "usess": 1}),
    ] {
        assert_eq!(app.post("/api/join-tokens", &bad).await.status, 400, "{bad}");
    }
    for (method, path) in [
        (Method::GET, "/api/join-tokens"),
        (Method::POST, "/api/join-tokens"),
        (Method::DELETE, "/api/join-tokens/x"),
    ] {
        assert_eq!(TestApp::send(app.anonymous(method, path)).await.status, 401, "{path}");
    }
    assert_eq!(app.delete("/api/join-tokens/x").await.status, 404);
}

async fn a_token_lets_hosts_into_its_group_alone(pair: Pair) {
    let app = TestApp::start(pair).await;
    let web = token(&app, json!({"group": "web", "uses": 2})).await;
    is_refused(&app, &stranger(&app, "h1", Some("db"), &web).await).await;
    joins(&app, &mut stranger(&app, "h1", Some("web"), &web).await).await;
    joins(&app, &mut stranger(&app, "h2", None, &web).await).await;
    let any = token(&app, json!({"uses": 2})).await;
    joins(&app, &mut stranger(&app, "h3", Some("db"), &any).await).await;
    joins(&app, &mut stranger(&app, "h4", None, &any).await).await;
    for (host, group) in [("h1", "web"), ("h2", "web"), ("h3", "db"), ("h4", "default")] {
        assert_eq!(server(&app, host).await["group"], group, "{host}");
    }
}

async fn a_token_lets_in_hosts_whose_name_fits(pair: Pair) {
    let app = TestApp::start(pair).await;
    let web = token(&app, json!({"hostname": "web*.example.com"})).await;
    is_refused(&app, &stranger(&app, "web1.example.org", None, &web).await).await;
    joins(&app, &mut stranger(&app, "web1.example.com", None, &web).await).await;
}

async fn a_token_lets_in_as_many_as_it_says_and_each_agent_counts_once(pair: Pair) {
    let app = TestApp::start(pair).await;
    let two = token(&app, json!({"uses": 2})).await;
    let mut first = stranger(&app, "h1", None, &two).await;
    joins(&app, &mut first).await;
    joins(&app, &mut first).await;
    assert_eq!(listed(&app, &two).await["uses_left"], 1);
    joins(&app, &mut stranger(&app, "h2", None, &two).await).await;
    let seen = listed(&app, &two).await;
    assert_eq!((&seen["uses_left"], &seen["state"]), (&json!(0), &json!("used_up")));
    is_refused(&app, &stranger(&app, "h3", None, &two).await).await;
    // A database that knows of the use, but not of the key any more.
    app.change("DELETE FROM agents").await;
    app.change("DELETE FROM servers").await;
    joins(&app, &mut first).await;
    assert_eq!(listed(&app, &two).await["uses_left"], 0);
}

async fn of_many_at_once_one_gets_the_last_use(pair: Pair) {
    let app = TestApp::start(pair).await;
    let one = token(&app, json!({})).await;
    let names = ["h1", "h2", "h3", "h4"];
    let agents = join_all(names.map(|host| stranger(&app, host, None, &one))).await;
    let hellos = join_all(agents.iter().map(|agent| agent.draft(&app))).await;
    let answers = join_all(agents.iter().zip(&hellos).map(|(agent, hello)| agent.say(&app, hello))).await;
    let mut answers: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    answers.sort_unstable();
    assert_eq!(answers, [200, 401, 401, 401]);
    assert_eq!(app.get("/api/servers").await.expect(200).as_array().unwrap().len(), 1);
    assert_eq!(app.number("SELECT COUNT(*) FROM join_token_uses").await, 1);
}

async fn an_expired_token_lets_nobody_in(pair: Pair) {
    let app = TestApp::start(pair).await;
    let (old, new) = (token(&app, json!({"uses": 2})).await, token(&app, json!({})).await);
    let mut known = stranger(&app, "h1", None, &old).await;
    joins(&app, &mut known).await;
    app.change("UPDATE join_tokens SET expires_at = created_at WHERE max_uses = 2").await;
    assert_eq!(listed(&app, &old).await["state"], "expired");
    is_refused(&app, &stranger(&app, "h2", None, &old).await).await;
    joins(&app, &mut stranger(&app, "h2", None, &new).await).await;
    // Who is in needs no token.
    joins(&app, &mut known).await;
}

async fn a_revoked_token_lets_nobody_in(pair: Pair) {
    let app = TestApp::start(pair).await;
    let (bad, good) = (token(&app, json!({})).await, token(&app, json!({})).await);
    let path = format!("/api/join-tokens/{}", bad["id"].as_str().unwrap());
    assert_eq!(app.delete(&path).await.status, 204);
    assert_eq!(app.delete(&path).await.status, 204);
    assert_eq!(listed(&app, &bad).await["state"], "revoked");
    is_refused(&app, &stranger(&app, "h1", None, &bad).await).await;
    joins(&app, &mut stranger(&app, "h1", None, &good).await).await;
}

async fn a_token_that_pins_another_controller_key_is_void(pair: Pair) {
    let app = TestApp::start(pair).await;
    let (void, good) = (token(&app, json!({"uses": 2})).await, token(&app, json!({})).await);
    // As after the keyring has left that key behind.
    app.change("UPDATE join_tokens SET fingerprint = '0000000000000000000000000000000000000000000000000000000000000000' WHERE max_uses = 2").await;
    assert_eq!(listed(&app, &void).await["state"], "void");
    is_refused(&app, &stranger(&app, "h1", None, &void).await).await;
    joins(&app, &mut stranger(&app, "h1", None, &good).await).await;
}

async fn a_proof_with_another_secret_is_refused(pair: Pair) {
    let app = TestApp::start(pair).await;
    let good = token(&app, json!({})).await;
    let text = good["token"].as_str().unwrap();
    let (id, rest) = text.split_once('.').unwrap();
    let (secret, fingerprint) = rest.split_once('.').unwrap();
    let other = json!({"token": format!("{id}.{}.{fingerprint}", secret.chars().rev().collect::<String>())});
    let unknown = json!({"token": format!("{id}0.{secret}.{fingerprint}")});
    is_refused(&app, &stranger(&app, "h1", None, &other).await).await;
    is_refused(&app, &stranger(&app, "h1", None, &unknown).await).await;
    let mut agent = stranger(&app, "h1", None, &good).await;
    let mut without = agent.draft(&app).await;
    without.join = None;
    assert_eq!(agent.say(&app, &without).await.expect(401)["detail"], STRANGER);
    joins(&app, &mut agent).await;
}
