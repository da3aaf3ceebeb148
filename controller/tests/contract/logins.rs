//! Document 001's log-in and users: every endpoint and block of them, against a running controller.

use reqwest::Method;
use serde_json::{Value, json};
use signet_controller::settings::Secret;
use signet_testkit::{Pair, on_both_pairs};

use crate::compare::{Extras, is_time};
use crate::contract::Contract;
use crate::document::Document;
use crate::sections::{Marks, read};
use crate::support::{Answer, TestApp};

on_both_pairs!(the_document_is_kept, a_new_endpoint_is_found_out);

fn document(text: &str) -> Document {
    read(text, &Marks { sections: &["JWT Token 认证", "用户管理 API"], error: "### 错误响应格式" })
}

const TEXT: &str = include_str!("../specs/pipelines.md");

async fn the_document_is_kept(pair: Pair) {
    let problems = check(pair, TEXT).await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

async fn a_new_endpoint_is_found_out(pair: Pair) {
    let new = "#### 用户列表\n```http\nGET /api/users/new/\n```\n响应：\n```json\n{}\n```\n#### 用户列表";
    let text = TEXT.replacen("#### 用户列表", new, 1).replacen("\"id\": 1,", "\"id\": 1, \"more\": 1,", 1);
    let problems = check(pair, &text).await;
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].contains("user: the fields"), "{problems:#?}");
}

async fn as_user(app: &TestApp, method: Method, path: &str, token: &str, body: Option<&Value>) -> Answer {
    let request = app.anonymous(method, path).bearer_auth(token);
    TestApp::send(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

async fn check(pair: Pair, text: &str) -> Vec<String> {
    let mut contract = Contract::of(document(text));
    let (login, refresh) = ("POST /api/auth/login", "POST /api/auth/refresh");
    let body = contract.request(login);
    let password = Secret::new(body["password"].as_str().unwrap());
    let app =
        TestApp::start_with(pair.parts().await, |settings| settings.admin_password = Some(password)).await;
    let post =
        async |path: &str, body: &Value| TestApp::send(app.anonymous(Method::POST, path).json(body)).await;

    let first = post("/api/auth/login/", &body).await.expect(200);
    let token = first["access"].as_str().unwrap();
    let profile = contract.response("GET /api/users/me").clone();
    let change = json!({ "email": profile["email"], "first_name": profile["first_name"],
        "last_name": profile["last_name"] });
    as_user(&app, Method::PATCH, "/api/users/me/", token, Some(&change)).await.expect(200);

    let found = contract.answered(login, 200, &post("/api/auth/login/", &body).await, Extras::None);
    let token = found["access"].as_str().unwrap();
    let me = as_user(&app, Method::GET, "/api/users/me/", token, None).await;
    let me = contract.answered("GET /api/users/me", 200, &me, Extras::Behind);
    // The decisions say what the document does not show.
    let list = as_user(&app, Method::GET, "/api/users/", token, None).await.expect(200);
    assert_eq!(list, json!({ "count": 1, "next": null, "previous": null, "results": [me] }));
    contract.seen("GET /api/users");

    let mut request = contract.request(refresh);
    request["refresh"] = found["refresh"].clone();
    let next = post("/api/auth/refresh/", &request).await.expect(200);
    assert_eq!(next.as_object().unwrap().keys().collect::<Vec<_>>(), ["access", "refresh"]);
    contract.seen(refresh);
    as_user(&app, Method::GET, "/api/users/me", next["access"].as_str().unwrap(), None).await.expect(200);

    let missing = post("/api/auth/login/", &json!({ "username": "a" })).await;
    contract.failed(400, &missing, |shape| {
        shape["error"]["details"] = json!({ "password": ["此字段不能为空"] });
        shape["path"] = "/api/auth/login/".into();
    });
    let change = json!({ "email": "nobody" });
    let wrong = as_user(&app, Method::PATCH, "/api/users/me/", token, Some(&change)).await;
    contract.failed(400, &wrong, |shape| {
        shape["error"]["details"] = json!({ "email": ["请输入有效的邮箱地址"] });
        shape["path"] = "/api/users/me/".into();
    });
    let stranger = post("/api/auth/login/", &json!({ "username": "a", "password": "b" })).await.expect(401);
    assert_eq!(stranger["error"]["code"], "AUTHENTICATION_ERROR");
    assert_eq!(stranger["error"]["message"], "认证失败");
    assert!(is_time(stranger["timestamp"].as_str().unwrap()));
    contract.finish()
}
