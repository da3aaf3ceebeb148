//! The database is away, at the start or later: the controller stays up, says so, and recovers alone.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use signet_common::bus::memory::MemoryBus;
use signet_common::bus::topology::Topology;
use signet_controller::settings::{Secret, Settings};
use signet_controller::store::{Statement, Store, StoreError};
use signet_controller::{Running, start_on};
use signet_testkit::{ChaosProxy, Fault, eventually, fresh_mysql_database};

const LONG: Duration = Duration::from_secs(60);

async fn controller(url: &str, data: &std::path::Path) -> Running {
    let mut settings = Settings::embedded(data);
    settings.database_url = Secret::new(url);
    settings.listen = vec!["127.0.0.1:0".parse().unwrap()];
    settings.admin_token = Some(Secret::new("t"));
    start_on(settings, std::sync::Arc::new(MemoryBus::new(Topology::default()))).await.unwrap()
}

async fn get(running: &Running, path: &str) -> (u16, Option<String>, String) {
    let url = format!("http://{}{path}", running.addrs[0]);
    let answer = Client::new().get(url).bearer_auth("t").send().await.unwrap();
    let retry = answer.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
    (answer.status().as_u16(), retry, answer.text().await.unwrap())
}

/// Asserts a 503 in the dialect, with `Retry-After`.
async fn unavailable(running: &Running, path: &str) {
    let (status, retry, text) = get(running, path).await;
    assert_eq!(status, 503, "{path}: {text}");
    assert!(retry.is_some(), "{path}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert!(body["detail"].is_string(), "{path}: {text}");
}

async fn healthy(running: &Running) {
    eventually(LONG, "the controller to recover", async || {
        (get(running, "/api/health").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(get(running, "/api/servers").await.0, 200);
}

/// Asks for a command with this key; gives the status and the task's id.
async fn ask(running: &Running, key: &str) -> (u16, Value) {
    let url = format!("http://{}/api/commands", running.addrs[0]);
    let body = json!({ "target_type": "all", "command": "true" });
    let request = Client::new().post(url).bearer_auth("t").header("idempotency-key", key).json(&body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    if status == 503 {
        assert!(answer.headers().contains_key("retry-after"));
    }
    let text = answer.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    assert!(status == 201 || body["detail"].is_string(), "{text}");
    (status, body["task_id"].clone())
}

/// What was refused with 503 can be asked for again with the same key, and is one task.
async fn one_task(running: &Running) {
    let url = format!("http://{}/api/servers", running.addrs[0]);
    let server = json!({ "hostname": "a", "ip": "10.0.0.1" });
    assert_eq!(Client::new().post(url).bearer_auth("t").json(&server).send().await.unwrap().status(), 201);
    let (first, again) = (ask(running, "same").await, ask(running, "same").await);
    assert_eq!((first.0, again.0), (201, 201));
    assert_eq!(first.1, again.1);
    let tasks: Value = serde_json::from_str(&get(running, "/api/tasks").await.2).unwrap();
    assert_eq!(tasks.as_array().unwrap().len(), 1, "{tasks}");
}

mod sqlite_memory {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_that_comes_after_the_start() {
        let data = tempfile::tempdir().unwrap();
        let later = data.path().join("later");
        let url = format!("sqlite://{}", later.join("signet.db").display());
        let mut running = controller(&url, data.path()).await;
        unavailable(&running, "/api/health").await;
        unavailable(&running, "/api/servers").await;
        assert_eq!(get(&running, "/docs").await.0, 200);
        assert_eq!(ask(&running, "same").await.0, 503);
        std::fs::create_dir(&later).unwrap();
        running.ready().await.unwrap();
        healthy(&running).await;
        one_task(&running).await;
        running.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_controller_that_never_got_its_database_stops_at_once() {
        let data = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", data.path().join("never/signet.db").display());
        let running = controller(&url, data.path()).await;
        unavailable(&running, "/api/health").await;
        running.stop().await.unwrap();
    }
}

mod mariadb_rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_that_comes_after_the_start() {
        let database = fresh_mysql_database().await;
        let (proxy, url) = ChaosProxy::in_front_of(database.url()).await;
        proxy.set(Fault::Refuse);
        let data = tempfile::tempdir().unwrap();
        let mut running = controller(&url, data.path()).await;
        unavailable(&running, "/api/health").await;
        unavailable(&running, "/api/servers").await;
        proxy.set(Fault::Pass);
        running.ready().await.unwrap();
        healthy(&running).await;
        running.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_that_goes_away_and_comes_back() {
        let database = fresh_mysql_database().await;
        let (proxy, url) = ChaosProxy::in_front_of(database.url()).await;
        let data = tempfile::tempdir().unwrap();
        let mut running = controller(&url, data.path()).await;
        running.ready().await.unwrap();
        healthy(&running).await;
        for fault in [Fault::Refuse, Fault::Stall] {
            proxy.set(fault);
            unavailable(&running, "/api/health").await;
            unavailable(&running, "/api/servers").await;
            assert_eq!(ask(&running, "same").await.0, 503);
            let metrics = get(&running, "/metrics").await.2;
            assert!(metrics.contains("signet_database_up 0"), "{metrics}");
            proxy.set(Fault::Pass);
            healthy(&running).await;
        }
        one_task(&running).await;
        running.stop().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_that_stalls_in_the_middle_of_a_transaction_is_away() {
        let database = fresh_mysql_database().await;
        let (proxy, url) = ChaosProxy::in_front_of(database.url()).await;
        let store = Store::open(&url).unwrap();
        let mut tx = store.begin().await.unwrap();
        proxy.set(Fault::Stall);
        let statement = Statement::same("SELECT 1 AS one").query();
        let answer = tokio::time::timeout(LONG, tx.all::<(i64,)>(statement)).await.expect("it hangs");
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
}
