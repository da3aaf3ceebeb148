//! Somebody with an account of one's own.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

pub(crate) const PASSWORD: &str = "correct horse";

/// Somebody who logged in.
pub(crate) struct Visitor {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) token: String,
}

impl Visitor {
    /// Makes an account with this role, and logs in.
    pub(crate) async fn new(app: &TestApp, name: &str, role: &str) -> Self {
        let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD });
        let made = app.post("/api/v1/auth/register", &body).await.expect(201);
        let id = made["data"]["id"].as_str().unwrap().to_owned();
        app.put(&format!("/api/v1/users/{id}"), &json!({ "role": role })).await.expect(200);
        let token =
            log_in(app, name, PASSWORD).await.expect(200)["data"]["token"].as_str().unwrap().to_owned();
        Self { name: name.to_owned(), id, token }
    }

    /// Logs in once more.
    pub(crate) async fn again(&self, app: &TestApp) -> Self {
        let token = log_in(app, &self.name, PASSWORD).await.expect(200)["data"]["token"].clone();
        Self { name: self.name.clone(), id: self.id.clone(), token: token.as_str().unwrap().to_owned() }
    }

    pub(crate) fn request(&self, app: &TestApp, method: Method, path: &str) -> RequestBuilder {
        app.anonymous(method, path).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, app: &TestApp, path: &str) -> Answer {
        TestApp::send(self.request(app, Method::GET, path)).await
    }

    pub(crate) async fn post(&self, app: &TestApp, path: &str, body: &Value) -> Answer {
        TestApp::send(self.request(app, Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, app: &TestApp, path: &str, body: &Value) -> Answer {
        TestApp::send(self.request(app, Method::PUT, path).json(body)).await
    }

    /// The path of one's own account.
    pub(crate) fn own(&self) -> String {
        format!("/api/v1/users/{}", self.id)
    }
}

/// Tries to log in.
pub(crate) async fn log_in(app: &TestApp, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password });
    TestApp::send(app.anonymous(Method::POST, "/api/v1/auth/login").json(&body)).await
}
