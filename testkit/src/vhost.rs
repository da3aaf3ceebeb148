//! A RabbitMQ vhost of its own for each test, made over the broker's HTTP API: `rabbitmqctl` takes a second for what
//! this does in 50 ms.

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::database::apart;
use crate::services::Services;

/// A vhost that is deleted with this value.
#[derive(Debug)]
pub struct Vhost {
    name: String,
    url: String,
}

/// Makes an empty vhost on the shared RabbitMQ.
///
/// # Panics
/// When there is no RabbitMQ; see [`Services::shared`].
pub async fn fresh_vhost() -> Vhost {
    let name = format!("t-{}", uuid::Uuid::new_v4().simple());
    let (server, _) = Services::shared().amqp_url.rsplit_once('/').expect("TEST_AMQP_URL names a vhost");
    let vhost = Vhost { url: format!("{server}/{name}"), name };
    vhost.make().await;
    vhost
}

impl Vhost {
    /// `amqp://administrator@…/<its name>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same over TLS, `amqps://…`; trust [`Services::amqp_ca_file`].
    ///
    /// # Panics
    /// When `TEST_AMQPS_URL` names no vhost.
    #[must_use]
    pub fn tls_url(&self) -> String {
        let (server, _) =
            Services::shared().amqps_url.rsplit_once('/').expect("TEST_AMQPS_URL names a vhost");
        format!("{server}/{}", self.name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Loses every queue, exchange, message and connection of this vhost, as a broker does whose data was deleted.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn wipe(&self) {
        delete(&self.name).await;
        self.make().await;
    }

    /// Closes every connection of this vhost, as an administrator would.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn close_connections(&self) {
        let list = format!("/api/vhosts/{}/connections", self.name);
        let (_, connections) = api(Method::GET, &list, Value::Null).await;
        for connection in connections.as_array().expect("a list of connections") {
            let name = connection["name"].as_str().expect("a connection's name").replace(' ', "%20");
            api(Method::DELETE, &format!("/api/connections/{}", name.replace('>', "%3E")), Value::Null).await;
        }
    }

    /// Asks the broker's HTTP API, `/api/…`; what it answers without JSON is null.
    ///
    /// # Panics
    /// When the broker refuses, but for 404.
    pub async fn api(&self, method: Method, path: &str, body: Value) -> Value {
        api(method, path, body).await.1
    }

    async fn make(&self) {
        let user = Services::shared().amqp_url.split("//").nth(1).and_then(|u| u.split(':').next());
        let user = user.expect("TEST_AMQP_URL names a user");
        api(Method::PUT, &format!("/api/vhosts/{}", self.name), json!({})).await;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        api(Method::PUT, &format!("/api/permissions/{}/{user}", self.name), all).await;
    }
}

async fn api(method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let url = format!("{}{path}", Services::shared().management_url);
    let request = Client::new().request(method.clone(), &url);
    let request = if body.is_null() { request } else { request.json(&body) };
    let response = request.send().await.expect("RabbitMQ's HTTP API does not answer");
    let status = response.status();
    let text = response.text().await.expect("RabbitMQ's HTTP API broke off");
    let fine = status.is_success() || status == StatusCode::NOT_FOUND;
    assert!(fine, "RabbitMQ answered {status} to {method} {path}: {text}");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn delete(name: &str) {
    api(Method::DELETE, &format!("/api/vhosts/{name}"), Value::Null).await;
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let name = self.name.clone();
        apart(async move { delete(&name).await });
    }
}
