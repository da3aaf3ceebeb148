//! Document 003's log-in and users: every endpoint, block and parameter of them, against a running controller.

use reqwest::Method;
use serde_json::{Value, json};
use signet_controller::settings::Secret;
use signet_testkit::{Pair, on_both_pairs};

use crate::compare::Extras;
use crate::contract::Contract;
use crate::sections::{Marks, read};
use crate::support::{Answer, TestApp};

on_both_pairs!(the_document_is_kept, a_changed_document_is_found_out);

const TEXT: &str = include_str!("../specs/clusters.md");
const MARKS: Marks =
    Marks { sections: &["认证接口", "用户管理接口"], error: "**错误响应格式**" };

async fn the_document_is_kept(pair: Pair) {
    let problems = check(pair, TEXT).await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

async fn a_changed_document_is_found_out(pair: Pair) {
    let text = TEXT
        .replacen("\"expires_in\": 86400", "\"expires_in\": 3600", 1)
        .replacen("- `role`: 角色过滤（", "- `more`: x\n- `role`: 角色过滤（", 1)
        .replacen("User deleted successfully", "Gone", 1);
    let problems = check(pair, &text).await;
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

async fn sent(app: &TestApp, method: Method, path: &str, token: &str, body: Option<&Value>) -> Answer {
    let request = app.anonymous(method, path);
    let request = if token.is_empty() { request } else { request.bearer_auth(token) };
    TestApp::send(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

/// Puts values where the document's request says `string`.
fn filled(mut body: Value, values: &[(&str, &str)]) -> Value {
    let names: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, values.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    values.iter().for_each(|(name, value)| body[*name] = (*value).into());
    body
}

async fn check(pair: Pair, text: &str) -> Vec<String> {
    let mut contract = Contract::of(read(text, &MARKS));
    let password = "correct horse";
    let app = TestApp::start_with(pair.parts().await, |settings| {
        settings.admin_password = Some(Secret::new(password));
        settings.development_token = true;
    })
    .await;
    let login = "POST /api/v1/auth/login";
    let body = filled(contract.request(login), &[("username", "admin"), ("password", password)]);
    let first = sent(&app, Method::POST, "/api/v1/auth/login", "", Some(&body)).await.expect(200);
    let (token, id) = (first["data"]["token"].clone(), first["data"]["user"]["id"].clone());
    let own = format!("/api/v1/users/{}", id.as_str().unwrap());
    let mail = json!({ "email": "admin@example.com" });
    sent(&app, Method::PUT, &own, token.as_str().unwrap(), Some(&mail)).await.expect(200);

    let found = sent(&app, Method::POST, "/api/v1/auth/login", "", Some(&body)).await;
    let found = contract.answered(login, 200, &found, Extras::None);
    let token = found["data"]["token"].as_str().unwrap().to_owned();
    let get = async |path: &str| sent(&app, Method::GET, path, &token, None).await;
    contract.answered("GET /api/v1/auth/profile", 200, &get("/api/v1/auth/profile").await, Extras::None);
    let list = get("/api/v1/users?page=1&limit=20&role=admin&search=admin").await;
    contract.answered("GET /api/v1/users", 200, &list, Extras::Behind);
    parameters(&app, &mut contract, &token).await;
    let detail = "GET /api/v1/users/{id}";
    contract.answered(detail, 200, &get(&own).await, Extras::Behind);
    contract.parameter(detail, "id");

    let newuser = registered(&app, &mut contract).await;
    changed(&app, &mut contract, &token, &newuser, &own).await;
    ended(&app, &mut contract, &token).await;
    contract.finish()
}

async fn parameters(app: &TestApp, contract: &mut Contract, token: &str) {
    let endpoint = "GET /api/v1/users";
    let get =
        async |query: &str| sent(app, Method::GET, &format!("/api/v1/users?{query}"), token, None).await;
    assert_eq!(get("page=2").await.expect(200)["data"]["users"], json!([]));
    assert_eq!(get("limit=500").await.expect(200)["data"]["limit"], 100);
    assert_eq!(get("role=user").await.expect(200)["data"]["total"], 0);
    for nothing in ["search=nobody", "search=%25", "search=_", "search=%5C"] {
        assert_eq!(get(nothing).await.expect(200)["data"]["total"], 0, "{nothing}");
    }
    assert_eq!(get("search=MIN%40exam").await.expect(200)["data"]["total"], 1);
    for (query, field) in [("page=0", "page"), ("limit=x", "limit"), ("role=root", "role")] {
        let answer = get(query).await.expect(400);
        assert!(answer["message"].as_str().unwrap().contains(field), "{answer}");
    }
    ["page", "limit", "role", "search"].iter().for_each(|name| contract.parameter(endpoint, name));
}

/// Registers the document's user; gives its id.
async fn registered(app: &TestApp, contract: &mut Contract) -> String {
    let register = "POST /api/v1/auth/register";
    let values = [
        ("username", "newuser"),
        ("email", "newuser@example.com"),
        ("password", "correct horse"),
        ("role", "admin"),
    ];
    let body = filled(contract.request(register), &values);
    let post = async |body: &Value| sent(app, Method::POST, "/api/v1/auth/register", "", Some(body)).await;
    let user = contract.answered(register, 201, &post(&body).await, Extras::None);
    assert_eq!(post(&body).await.expect(409)["data"], Value::Null);
    let mut other = body.clone();
    other["username"] = "other".into();
    assert_eq!(post(&other).await.status, 409, "the address is taken");
    other["email"] = "other@example.com".into();
    other["password"] = "short".into();
    assert_eq!(post(&other).await.status, 422);
    let mut missing = body;
    missing.as_object_mut().unwrap().remove("username");
    contract.failed(400, &post(&missing).await, |shape| {
        shape["message"] = "Invalid request parameter: username is required".into();
    });
    user["data"]["id"].as_str().unwrap().to_owned()
}

async fn changed(app: &TestApp, contract: &mut Contract, token: &str, newuser: &str, own: &str) {
    let (put, password) = ("PUT /api/v1/users/{id}", "PUT /api/v1/users/{id}/password");
    // The example's admin becomes a user, so another one has to stay.
    let other = format!("/api/v1/users/{newuser}");
    let admin = json!({ "role": "admin" });
    sent(app, Method::PUT, &other, token, Some(&admin)).await.expect(200);
    let body = filled(contract.request(put), &[("email", "newemail@example.com"), ("role", "user")]);
    let answer = sent(app, Method::PUT, own, token, Some(&body)).await;
    contract.answered(put, 200, &answer, Extras::Behind);
    contract.parameter(put, "id");
    assert_eq!(sent(app, Method::GET, "/api/v1/users", token, None).await.status, 403, "at once");

    let old_and_new = [("old_password", "correct horse"), ("new_password", "battery staple")];
    let body = filled(contract.request(password), &old_and_new);
    let path = format!("{own}/password");
    contract.answered(password, 200, &sent(app, Method::PUT, &path, token, Some(&body)).await, Extras::None);
    contract.parameter(password, "id");
    assert_eq!(sent(app, Method::PUT, &path, token, Some(&body)).await.status, 400, "no longer the old one");

    let delete = "DELETE /api/v1/users/{id}";
    let made = json!({ "username": "gone", "email": "gone@example.com", "password": "correct horse" });
    let gone = sent(app, Method::POST, "/api/v1/auth/register", "", Some(&made)).await.expect(201);
    let path = format!("/api/v1/users/{}", gone["data"]["id"].as_str().unwrap());
    assert_eq!(sent(app, Method::DELETE, &path, token, None).await.status, 403);
    contract.answered(delete, 200, &app.delete(&path).await, Extras::None);
    contract.parameter(delete, "id");
    assert_eq!(app.delete(&path).await.status, 404);
    assert_eq!(app.delete("/api/v1/users/no-uuid").await.status, 400);
}

async fn ended(app: &TestApp, contract: &mut Contract, token: &str) {
    let (refresh, logout) = ("POST /api/v1/auth/refresh", "POST /api/v1/auth/logout");
    let body = filled(contract.request(refresh), &[("token", token)]);
    let next = sent(app, Method::POST, "/api/v1/auth/refresh", "", Some(&body)).await.expect(200);
    contract.seen(refresh);
    let next = next["data"]["token"].as_str().unwrap();
    assert_eq!(sent(app, Method::GET, "/api/v1/auth/profile", token, None).await.status, 401, "exchanged");
    sent(app, Method::GET, "/api/v1/auth/profile", next, None).await.expect(200);
    let out = sent(app, Method::POST, "/api/v1/auth/logout", next, None).await.expect(200);
    assert_eq!(out["data"], json!({ "message": "Logged out" }));
    assert_eq!(sent(app, Method::GET, "/api/v1/auth/profile", next, None).await.status, 401);
    contract.seen(logout);
    let given = sent(app, Method::GET, "/api/v1/auth/token", "", None).await;
    let given = contract.answered("GET /api/v1/auth/token", 200, &given, Extras::None);
    let token = given["data"]["token"].as_str().unwrap();
    let profile = sent(app, Method::GET, "/api/v1/auth/profile", token, None).await.expect(200);
    assert_eq!(profile["data"]["role"], "user");
}
