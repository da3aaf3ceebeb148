//! Log-ins: passwords, tokens that are used twice or forged, cookies from other sites, tickets.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use signet_controller::accounts::PASSWORD_CHECKS;
use signet_controller::settings::Secret;
use signet_controller::store::{Statement, Store};
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::support::{Answer, PATIENCE, TestApp};
use crate::visitor::{PASSWORD, Visitor, log_in};

on_both_pairs!(
    a_refresh_token_counts_once,
    a_forged_token_is_nobodys,
    nobody_learns_which_accounts_there_are,
    failures_are_slowed_down,
    another_address_is_not_slowed_down,
    another_site_changes_nothing,
    a_stream_needs_a_ticket_or_a_token,
    the_development_token_is_for_this_machine,
    the_first_admin_is_made_once,
    a_first_password_that_does_not_work_is_removed,
    a_first_password_that_was_written_is_used,
);

async fn post(app: &TestApp, path: &str, body: &Value) -> Answer {
    TestApp::send(app.anonymous(Method::POST, path).json(body)).await
}

async fn pair(app: &TestApp, name: &str) -> (String, String) {
    let body = json!({ "username": name, "password": PASSWORD });
    let found = post(app, "/api/auth/login", &body).await.expect(200);
    (found["access"].as_str().unwrap().to_owned(), found["refresh"].as_str().unwrap().to_owned())
}

async fn me(app: &TestApp, token: &str) -> u16 {
    TestApp::send(app.anonymous(Method::GET, "/api/users/me").bearer_auth(token)).await.status.as_u16()
}

async fn a_refresh_token_counts_once(pair_of: Pair) {
    let app = TestApp::start(pair_of).await;
    Visitor::new(&app, "alice", "viewer").await;
    let (access, refresh) = pair(&app, "alice").await;
    let (other, _) = pair(&app, "alice").await;
    assert_eq!(me(&app, &refresh).await, 401, "a refresh token is for no request");
    assert_eq!(post(&app, "/api/auth/refresh", &json!({ "refresh": access })).await.status, 401);
    let body = json!({ "refresh": refresh });
    let next = post(&app, "/api/auth/refresh", &body).await.expect(200);
    assert_eq!(me(&app, next["access"].as_str().unwrap()).await, 200);
    assert_eq!(post(&app, "/api/auth/refresh", &body).await.status, 401, "a second time");
    assert_eq!(me(&app, next["access"].as_str().unwrap()).await, 401, "the whole log-in ended");
    assert_eq!(post(&app, "/api/auth/refresh", &json!({ "refresh": next["refresh"] })).await.status, 401);
    assert_eq!(me(&app, &other).await, 200, "another log-in goes on");
}

async fn a_forged_token_is_nobodys(pair_of: Pair) {
    let app = TestApp::start(pair_of).await;
    Visitor::new(&app, "alice", "admin").await;
    let (access, _) = pair(&app, "alice").await;
    assert_eq!(me(&app, &access).await, 200);
    let payload = access.split('.').nth(1).unwrap();
    let key = app.get("/api/agents/controller-key").await.text;
    let signed = |header: &str, key: &[u8]| {
        let text = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes())))
    };
    let none = |header: &str| format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(header));
    for forged in [
        none(r#"{"alg":"none","typ":"JWT"}"#),
        none(r#"{"alg":"nOnE"}"#),
        none(r#"{"alg":"HS256","typ":"JWT"}"#),
        signed(r#"{"alg":"HS256","typ":"JWT"}"#, key.as_bytes()),
        signed(r#"{"alg":"HS256","typ":"JWT"}"#, key.trim().as_bytes()),
        signed(r#"{"alg":"HS256","typ":"JWT"}"#, b""),
        signed(r#"{"alg":"HS256","typ":"JWT","kid":"../../dev/null"}"#, b""),
        format!("{access}x"),
    ] {
        assert_eq!(me(&app, &forged).await, 401, "{forged}");
    }
}

async fn nobody_learns_which_accounts_there_are(pair_of: Pair) {
    let app = TestApp::start(pair_of).await;
    let alice = Visitor::new(&app, "alice", "user").await;
    Visitor::new(&app, "bob", "user").await;
    app.put(&alice.own(), &json!({ "is_active": false })).await.expect(200);
    let mut answers = Vec::new();
    // There is no such account; a wrong password; a disabled account with the right one; no name at all.
    for (name, password) in
        [("nobody", PASSWORD), ("bob", "wrong horse"), ("alice", PASSWORD), ("no name!", "x")]
    {
        let before = PASSWORD_CHECKS.load(Ordering::Relaxed);
        let answer = log_in(&app, name, password).await;
        assert_eq!(PASSWORD_CHECKS.load(Ordering::Relaxed) - before, 1, "{name}");
        answers.push((answer.status, answer.text));
    }
    assert!(answers.iter().all(|a| a == &answers[0]), "{answers:#?}");
    assert_eq!(answers[0].0, 401);
    log_in(&app, "bob", PASSWORD).await.expect(200);
}

async fn failures_are_slowed_down(pair_of: Pair) {
    let app = TestApp::start(pair_of).await;
    Visitor::new(&app, "alice", "user").await;
    let tries = futures_util::future::join_all((0..60).map(|_| log_in(&app, "alice", "wrong horse"))).await;
    let looked_at = tries.iter().filter(|answer| answer.status == 401).count();
    assert!((1..=40).contains(&looked_at), "{looked_at}");
    let refused = log_in(&app, "alice", PASSWORD).await;
    assert_eq!(refused.status, 429, "also with the right password");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=90).contains(&wait), "somebody logged in from here before: {wait}");
    app.change("UPDATE login_attempts SET last_failure_at = last_failure_at - 90000000").await;
    log_in(&app, "alice", PASSWORD).await.expect(200);
    log_in(&app, "alice", "wrong horse").await.expect(401);
}

async fn another_address_is_not_slowed_down(pair_of: Pair) {
    let app = TestApp::start_with(pair_of.parts().await, |settings| {
        settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        settings.registration = Some(true);
    })
    .await;
    Visitor::new(&app, "alice", "user").await;
    let from = async |address: &str, password: &str| {
        let body = json!({ "username": "alice", "password": password });
        let request = app.anonymous(Method::POST, "/api/v1/auth/login").header("x-forwarded-for", address);
        TestApp::send(request.json(&body)).await.status.as_u16()
    };
    for _ in 0..5 {
        assert_eq!(from("192.0.2.1", "wrong horse").await, 401);
    }
    assert_eq!(from("192.0.2.1", PASSWORD).await, 429);
    // What the client itself writes is not believed: the address is what the proxy saw.
    assert_eq!(from("192.0.2.2, 192.0.2.1", PASSWORD).await, 429);
    assert_eq!(from("192.0.2.2", PASSWORD).await, 200);
}

async fn another_site_changes_nothing(pair_of: Pair) {
    let app = TestApp::start(pair_of).await;
    let alice = Visitor::new(&app, "alice", "admin").await;
    let host = app.base.strip_prefix("http://").unwrap();
    let body = json!({ "username": "alice", "password": PASSWORD });
    let session =
        |origin: &str| app.anonymous(Method::POST, "/api/session").header("origin", origin).json(&body);
    assert_eq!(TestApp::send(session("https://evil.example")).await.status, 403);
    let answer = TestApp::send(session(&app.base)).await;
    let set = answer.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    let cookie = set.split(';').next().unwrap();
    let with = |method: Method, path: &str| app.anonymous(method, path).header("cookie", cookie);
    assert_eq!(TestApp::send(with(Method::GET, "/api/servers")).await.status, 200);
    let server = json!({ "hostname": "a", "ip": "10.0.0.1" });
    let post = || with(Method::POST, "/api/servers").json(&server);
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("x-a", "b")]
    {
        assert_eq!(TestApp::send(post().header(name, value)).await.status, 403, "{name}");
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM servers").await, 0);
    TestApp::send(post().header("sec-fetch-site", "same-origin").header("host", host)).await.expect(201);
    // The cookie is no bearer token, and a bearer token no cookie.
    let value = cookie.split_once('=').unwrap().1;
    assert_eq!(me(&app, value).await, 401);
    let as_cookie = format!("signet_session={}", alice.token);
    let request = app.anonymous(Method::GET, "/api/servers").header("cookie", as_cookie);
    assert_eq!(TestApp::send(request).await.status, 401);
    let out = with(Method::DELETE, "/api/session").header("sec-fetch-site", "same-origin");
    assert_eq!(TestApp::send(out).await.status, 204);
    assert_eq!(TestApp::send(with(Method::GET, "/api/servers")).await.status, 401);
}

async fn a_stream_needs_a_ticket_or_a_token(pair_of: Pair) {
    let app = TestApp::start(pair_of).await;
    let alice = Visitor::new(&app, "alice", "viewer").await;
    let path = "/api/tasks/00000000-0000-7000-8000-000000000000/events";
    let with = async |query: &str| {
        TestApp::send(app.anonymous(Method::GET, &format!("{path}{query}"))).await.status.as_u16()
    };
    assert_eq!(with("").await, 401);
    assert_eq!(with("?ticket=wrong").await, 401);
    let made = alice.post(&app, "/api/tickets", &json!({})).await.expect(201);
    let query = format!("?ticket={}", made["ticket"].as_str().unwrap());
    let other = TestApp::send(app.anonymous(Method::GET, &format!("/api/servers{query}"))).await;
    assert_eq!(other.status, 401, "for streams alone");
    assert_eq!(with(&query).await, 404, "let in: there is no such task");
    assert_eq!(with(&query).await, 401, "once");
    let late = alice.post(&app, "/api/tickets", &json!({})).await.expect(201);
    app.change("UPDATE tickets SET expires_at = 1").await;
    assert_eq!(with(&format!("?ticket={}", late["ticket"].as_str().unwrap())).await, 401);
    let mine = alice.post(&app, "/api/tickets", &json!({})).await.expect(201);
    app.put(&alice.own(), &json!({ "is_active": false })).await.expect(200);
    assert_eq!(with(&format!("?ticket={}", mine["ticket"].as_str().unwrap())).await, 401);
}

async fn the_development_token_is_for_this_machine(pair_of: Pair) {
    let off = TestApp::start(pair_of).await;
    let path = "/api/v1/auth/token";
    let answer = TestApp::send(off.anonymous(Method::GET, path)).await;
    assert_eq!(answer.expect(404), json!({ "code": 404, "message": "Not Found", "data": null }));
    let on = TestApp::start_with(pair_of.parts().await, |settings| settings.development_token = true).await;
    let far = on.anonymous(Method::GET, path).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(TestApp::send(far).await.status, 404);
    TestApp::send(on.anonymous(Method::GET, path)).await.expect(200);
}

/// The generated password that the program would print.
fn first_password(app: &TestApp) -> Option<String> {
    let line = app.running.first_password_line()?;
    Some(line.split("password ").nth(1).unwrap().split(' ').next().unwrap().to_owned())
}

fn password_file(app: &TestApp) -> PathBuf {
    app.running.app.settings.data_dir.join("admin.password")
}

async fn the_first_admin_is_made_once(pair_of: Pair) {
    let parts = pair_of.parts().await;
    let app =
        TestApp::start_with(parts, |settings| settings.admin_password = Some(Secret::new("short"))).await;
    log_in(&app, "Admin", "short").await.expect(200);
    let other = TestApp::start(pair_of).await;
    let password = &first_password(&other).unwrap();
    assert!(first_password(&other).is_none(), "printed once");
    log_in(&other, "admin", password).await.expect(200);
    let file = password_file(&other);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), password);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let beside = other.beside().await;
    assert!(first_password(&beside).is_none());
    log_in(&beside, "admin", password).await.expect(200);
}

/// As when a controller died after it wrote the file, and the admin was made by one with a data directory of its own;
/// and as when the admin was given another password later.
async fn a_first_password_that_does_not_work_is_removed(pair_of: Pair) {
    let app = TestApp::start(pair_of).await;
    let password = first_password(&app).unwrap();
    let file = password_file(&app);
    std::fs::write(&file, "of another installation\n").unwrap();
    let beside = app.beside().await;
    log_in(&beside, "admin", &password).await.expect(200);
    assert!(!file.exists());
    std::fs::write(&file, format!("{password}\n")).unwrap();
    app.beside().await;
    assert!(file.exists(), "it works");
}

/// As when a controller died after it wrote the file, and before it made the admin.
async fn a_first_password_that_was_written_is_used(pair_of: Pair) {
    let app = TestApp::start_with(pair_of.parts().await, |settings| {
        std::fs::write(settings.data_dir.join("admin.password"), "left-by-one-that-died\n").unwrap();
    })
    .await;
    log_in(&app, "admin", "left-by-one-that-died").await.expect(200);
    assert_eq!(first_password(&app).unwrap(), "left-by-one-that-died");
    assert!(password_file(&app).exists());
}

/// Two controllers with one data directory each find no account, and one of them is too late: the file must hold the
/// password that works all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_two_controllers_make_one_first_admin() {
    let parts = Pair::MariadbRabbitmq.parts().await;
    let store = Store::open(parts.database_url()).unwrap();
    store.migrate().await.unwrap();
    // Neither makes an account before both have seen that there is none.
    let mut hold = store.begin().await.unwrap();
    hold.run(Statement::same("UPDATE counters SET last = last WHERE name = 'users'").query()).await.unwrap();
    let both_wait = Statement::same(
        "SELECT COUNT(*) FROM information_schema.processlist \
         WHERE db = DATABASE() AND info LIKE 'UPDATE counters % WHERE name = ''users''%'",
    );
    let let_go = async {
        eventually(PATIENCE, "both to make the first admin", async || {
            let waiting = store.first::<(i64,)>(both_wait.query()).await.unwrap();
            (waiting == Some((2,))).then_some(())
        })
        .await;
        hold.commit().await.unwrap();
    };
    let ((one, other), ()) = tokio::join!(TestApp::two_at_once(parts), let_go);

    let password = std::fs::read_to_string(password_file(&one)).unwrap();
    log_in(&one, "admin", password.trim()).await.expect(200);
    log_in(&other, "admin", password.trim()).await.expect(200);
    let printed: Vec<String> = [&one, &other].into_iter().filter_map(first_password).collect();
    assert_eq!(printed, [password.trim()], "by the one that made it");
}
