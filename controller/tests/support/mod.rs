//! A controller as a test starts it: own database, own bus, a free port; and agents that tests play.
//!
//! Every test binary includes this by its path.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of it")]

pub mod capturing_bus;
pub mod dump;
pub mod fake_agent;
pub mod moody_bus;
pub mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use signet_common::SigningKey;
use signet_common::bus::Bus;
use signet_controller::settings::{BusSettings, Secret, Settings};
use signet_controller::store::{Statement, Store};
use signet_controller::{Running, start_on};
use signet_testkit::{Pair, Parts, eventually};

pub const ADMIN_TOKEN: &str = "test-admin-token";
pub const JOIN_TOKEN: &str = "test-join-token";
/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What agents are told as the broker when the bus is in this process, so that hellos from many are answered as with a
/// real broker. Nothing listens there.
const NO_BROKER: &str = "amqp://in-this-process.invalid/";
/// Made with `openssl genpkey`; known to everyone, so that most tests need not wait for new keys.
const AGENT_KEYS: [&str; 4] = [
    include_str!("keys/agent0.pem"),
    include_str!("keys/agent1.pem"),
    include_str!("keys/agent2.pem"),
    include_str!("keys/agent3.pem"),
];

/// A controller on a pair. Dropped, it stops, and its database and bus go with it.
pub struct TestApp {
    pub running: Running,
    pub parts: Arc<Parts>,
    pub bus: Arc<dyn Bus>,
    pub base: String,
    client: Client,
    keys_used: Arc<AtomicUsize>,
    data: Arc<tempfile::TempDir>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Asserts the status and gives the JSON.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()
    }
}

impl TestApp {
    pub async fn start(pair: Pair) -> Self {
        Self::start_with(pair.parts().await, |_| {}).await
    }

    /// Starts with settings that the test changes.
    pub async fn start_with(parts: Parts, change: impl FnOnce(&mut Settings)) -> Self {
        let bus = parts.controller_bus().await;
        Self::start_on(parts, bus, change).await
    }

    /// Starts on a bus that is not quite that of the parts.
    pub async fn start_on(parts: Parts, bus: Arc<dyn Bus>, change: impl FnOnce(&mut Settings)) -> Self {
        let data = Arc::new(tempfile::tempdir().unwrap());
        Self::start_at(Arc::new(parts), bus, data, Arc::default(), change).await
    }

    /// A second controller of the same installation: same database, broker and master key.
    pub async fn beside(&self) -> Self {
        let bus = self.parts.controller_bus().await;
        let same = self.running.app.settings.bus.clone();
        let (parts, data, keys) = (self.parts.clone(), self.data.clone(), self.keys_used.clone());
        Self::start_at(parts, bus, data, keys, |settings| settings.bus = same).await
    }

    /// Two controllers of one installation that start at the same time.
    pub async fn two_at_once(parts: Parts) -> (Self, Self) {
        let (parts, data, keys) = (Arc::new(parts), Arc::new(tempfile::tempdir().unwrap()), Arc::default());
        let one = async || {
            let bus = parts.controller_bus().await;
            Self::start_at(parts.clone(), bus, data.clone(), Arc::clone(&keys), |_| {}).await
        };
        tokio::join!(one(), one())
    }

    async fn start_at(
        parts: Arc<Parts>,
        bus: Arc<dyn Bus>,
        data: Arc<tempfile::TempDir>,
        keys_used: Arc<AtomicUsize>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings::embedded(data.path());
        settings.database_url = Secret::new(parts.database_url());
        settings.listen = vec!["127.0.0.1:0".parse().unwrap()];
        settings.admin_token = Some(Secret::new(ADMIN_TOKEN));
        settings.join_token = Some(Secret::new(JOIN_TOKEN));
        let url = Secret::new(parts.amqp_url().unwrap_or(NO_BROKER));
        settings.bus = BusSettings::Amqp { url, agent_url: None, management_url: None };
        change(&mut settings);
        let mut running = start_on(settings, bus.clone()).await.unwrap();
        running.ready().await.unwrap();
        let base = format!("http://{}", running.addrs[0]);
        Self { running, parts, bus, base, client: Client::new(), keys_used, data }
    }

    /// The controller's database, for what the API doesn't show and for time that a test doesn't wait for.
    pub fn db(&self) -> &Store {
        &self.running.app.store
    }

    /// Changes the database by hand.
    pub async fn change(&self, statement: &'static str) {
        let mut tx = self.db().begin().await.unwrap();
        tx.run(Statement::same(statement).query()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A number from the database.
    pub async fn number(&self, statement: &'static str) -> i64 {
        self.db().first::<(i64,)>(Statement::same(statement).query()).await.unwrap().unwrap().0
    }

    /// A key that no other agent of this app has.
    pub fn agent_key(&self) -> SigningKey {
        match AGENT_KEYS.get(self.keys_used.fetch_add(1, Ordering::Relaxed)) {
            Some(pem) => SigningKey::from_pem(pem).unwrap(),
            None => SigningKey::generate().unwrap(),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(ADMIN_TOKEN)
    }

    /// Without a credential.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub async fn send(request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Self::send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Self::send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        Self::send(self.request(Method::PUT, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Self::send(self.request(Method::DELETE, path)).await
    }

    /// Asks again until the answer to a GET fulfils the condition, and gives its JSON.
    pub async fn eventually(&self, path: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, path, async || {
            let answer = self.get(path).await;
            Some(answer.json()).filter(|json| answer.status.is_success() && condition(json))
        })
        .await
    }
}
