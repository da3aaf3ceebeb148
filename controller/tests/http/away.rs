//! The database is away, at the start or later: the controller stays up, says so, and recovers alone.

use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use signet_common::bus::memory::MemoryBus;
use signet_common::bus::topology::Topology;
use signet_controller::settings::{Secret, Settings};
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
        std::fs::create_dir(&later).unwrap();
        running.ready().await.unwrap();
        healthy(&running).await;
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
            if fault == Fault::Refuse {
                unavailable(&running, "/api/servers").await;
            }
            let metrics = get(&running, "/metrics").await.2;
            assert!(metrics.contains("signet_database_up 0"), "{metrics}");
            proxy.set(Fault::Pass);
            healthy(&running).await;
        }
        running.stop().await.unwrap();
    }
}
