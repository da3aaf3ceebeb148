//! The kit itself: what other tests rely on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use signet_testkit::{ChaosProxy, Fault, PrivateServices, eventually, fresh_mysql_database, fresh_vhost};
use sqlx::{Connection, Executor, MySqlConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn databases_are_apart_and_dropped() {
    let (one, two) = (fresh_mysql_database().await, fresh_mysql_database().await);
    let mut first = MySqlConnection::connect(one.url()).await.unwrap();
    let mut second = MySqlConnection::connect(two.url()).await.unwrap();
    first.execute("CREATE TABLE t (a BIGINT)").await.unwrap();
    second.execute("CREATE TABLE t (a BIGINT)").await.unwrap();
    let gone = one.url().to_owned();
    drop(one);
    assert!(MySqlConnection::connect(&gone).await.is_err());
    second.execute("INSERT INTO t VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn vhosts_are_made_wiped_and_deleted() {
    let vhost = fresh_vhost().await;
    let at = format!("/api/vhosts/{}", vhost.name());
    assert_eq!(vhost.api(reqwest::Method::GET, &at, serde_json::Value::Null).await["name"], vhost.name());
    vhost.wipe().await;
    let other = fresh_vhost().await;
    drop(vhost);
    assert_eq!(
        other.api(reqwest::Method::GET, &at, serde_json::Value::Null).await["error"],
        "Object Not Found"
    );
}

#[tokio::test]
async fn private_services_die_return_and_are_restored() {
    let services = PrivateServices::start().await;
    let mut mysql = MySqlConnection::connect(services.mysql_url()).await.unwrap();
    mysql.execute("CREATE TABLE t (a BIGINT, b LONGBLOB)").await.unwrap();
    mysql.execute("INSERT INTO t VALUES (1, x'00ff')").await.unwrap();
    let dump = services.dump().await;
    mysql.execute("INSERT INTO t VALUES (2, x'01')").await.unwrap();

    tokio::join!(services.kill_mysql(), services.kill_rabbit());
    assert!(MySqlConnection::connect(services.mysql_url()).await.is_err());
    services.start_mysql().await;
    let mut mysql = MySqlConnection::connect(services.mysql_url()).await.unwrap();
    assert_eq!(count(&mut mysql).await, 2, "what was committed survives kill -9");

    services.restore(&dump).await;
    let mut mysql = MySqlConnection::connect(services.mysql_url()).await.unwrap();
    assert_eq!(count(&mut mysql).await, 1, "the database is as it was when it was dumped");
    services.start_rabbit().await;
    services.wipe_broker().await;
}

async fn count(mysql: &mut MySqlConnection) -> i64 {
    sqlx::query_scalar("SELECT COUNT(*) FROM t").fetch_one(mysql).await.unwrap()
}

/// A server that says back what it hears.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = socket.split();
                tokio::io::copy(&mut from, &mut to).await.ok();
            });
        }
    });
    address
}

/// What the client hears within 200 ms; an empty answer is the end of the connection.
async fn hears(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut buffer = [0; 16];
    let read = tokio::time::timeout(Duration::from_millis(200), client.read(&mut buffer)).await.ok()?;
    Some(read.map_or_else(|_| Vec::new(), |n| buffer[..n].to_vec()))
}

#[tokio::test]
async fn the_proxy_breaks_what_it_is_told_to() {
    let proxy = ChaosProxy::start(echo().await).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"a").await.unwrap();
    assert_eq!(hears(&mut client).await.unwrap(), b"a");

    proxy.set(Fault::Stall);
    client.write_all(b"b").await.unwrap();
    assert_eq!(hears(&mut client).await, None);
    proxy.set(Fault::Pass);
    assert_eq!(hears(&mut client).await.unwrap(), b"b", "a stall delays, it loses nothing");

    proxy.set(Fault::SwallowReplies);
    client.write_all(b"c").await.unwrap();
    assert_eq!(hears(&mut client).await, None);
    proxy.set(Fault::Pass);
    assert_eq!(hears(&mut client).await, None, "what was swallowed is lost");

    proxy.set(Fault::HalfOpen);
    assert_eq!(hears(&mut client).await, None, "the client doesn't learn of it");
    proxy.set(Fault::Pass);
    assert_eq!(hears(&mut client).await.unwrap(), b"", "until the fault ends");

    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    client.write_all(b"d").await.unwrap();
    assert_eq!(hears(&mut client).await.unwrap(), b"d");
    proxy.cut();
    assert_eq!(hears(&mut client).await.unwrap(), b"");
    proxy.set(Fault::Refuse);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(hears(&mut client).await.unwrap(), b"");
    eventually(SOON, "all connections to end", async || (proxy.connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn the_proxy_stands_in_a_url() {
    let server = echo().await;
    let (proxy, url) = ChaosProxy::in_front_of(&format!("amqp://user:password@{server}/vhost")).await;
    assert_eq!(url, format!("amqp://user:password@{}/vhost", proxy.address()));
}
