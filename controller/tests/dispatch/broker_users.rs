//! What an agent's own broker user may do, and everything else, which it may not. The broker itself is asked.

use std::sync::Arc;

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use signet_common::SigningKey;
use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Retry, Role};
use signet_common::bus::{Bus as _, BusError, Mode, Queue};
use signet_common::messages::Standing;
use signet_controller::settings::{BusSettings, Secret};
use signet_testkit::{Pair, Services, eventually};

use super::ask_node;
use super::support::fake_agent::{FakeAgent, exited};
use super::support::{PATIENCE, TestApp};

async fn start(management: &str) -> TestApp {
    let management = Some(Secret::new(management));
    TestApp::start_with(Pair::MariadbRabbitmq.parts().await, |settings| {
        let BusSettings::Amqp { management_url, .. } = &mut settings.bus else { panic!("no broker") };
        *management_url = management;
    })
    .await
}

async fn managed() -> TestApp {
    start(&Services::shared().management_url).await
}

/// A welcomed agent with a key that no other test has: users belong to the whole broker.
async fn welcomed(app: &TestApp, host: &str) -> FakeAgent {
    let mut agent = FakeAgent::with_key(app, SigningKey::generate().unwrap(), host, "web").await;
    assert_eq!(agent.hello(app).await.standing, Standing::Accepted);
    agent
}

fn bus(agent: &FakeAgent) -> AmqpBus {
    let options = AmqpOptions::new(agent.broker.clone().unwrap(), "test", Role::Agent);
    AmqpBus::start(AmqpOptions { retry: Retry::quick(), ..options }).unwrap()
}

/// Whether the broker knows the agent's user.
async fn is_there(app: &TestApp, agent: &FakeAgent) -> bool {
    let path = format!("/api/users/signet.agent.{}", agent.id);
    app.parts.vhost().unwrap().api(Method::GET, &path, Value::Null).await["name"].is_string()
}

async fn connect(agent: &FakeAgent) -> lapin::Result<Connection> {
    Connection::connect(agent.broker.as_deref().unwrap(), ConnectionProperties::default()).await
}

async fn publish(channel: &Channel, exchange: &str, key: &str) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent =
        channel.basic_publish(exchange.into(), key.into(), options, b"x", BasicProperties::default()).await?;
    sent.await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_works_with_a_user_of_its_own() {
    let app = managed().await;
    let mut agent = welcomed(&app, "h1").await;
    let broker = agent.broker.clone().unwrap();
    assert!(broker.contains(&format!("signet%2Eagent%2E{}:", agent.id)), "not the shared user");
    agent.bus = Arc::new(bus(&agent));
    agent.consume().await;
    agent.come_online(&app).await;
    assert_eq!(app.get("/api/servers/h1").await.expect(200)["broker_user"], "own");
    let task = ask_node(&app, "h1").await;
    agent.run_next(exited(0, "done\n", "")).await;
    app.eventually(&format!("/api/tasks/{task}/results"), |results| results[0]["stdout"] == "done\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_may_nothing_else_at_the_broker() {
    let app = managed().await;
    let (agent, other) = (welcomed(&app, "h1").await, welcomed(&app, "h2").await);
    let (own, foreign) = (Queue::Agent(agent.id.clone()).name(), Queue::Agent(other.id.clone()).name());
    let connection = connect(&agent).await.unwrap();
    let table = FieldTable::default;
    // The twin: what it may do succeeds over the same connection.
    let channel = connection.create_channel().await.unwrap();
    let consume = BasicConsumeOptions::default();
    channel.basic_consume(own.as_str().into(), "".into(), consume, table()).await.unwrap();
    publish(&channel, "signet.up", "heartbeats").await.unwrap();

    for forbidden in 0..15 {
        let channel = connection.create_channel().await.unwrap();
        let refused = match forbidden {
            0 => channel.basic_consume(foreign.as_str().into(), "".into(), consume, table()).await.map(drop),
            1 => channel.basic_get(foreign.as_str().into(), BasicGetOptions::default()).await.map(drop),
            2 => channel.queue_purge(foreign.as_str().into(), QueuePurgeOptions::default()).await.map(drop),
            3 => channel.queue_delete(foreign.as_str().into(), QueueDeleteOptions::default()).await.map(drop),
            4 => channel.queue_delete(own.as_str().into(), QueueDeleteOptions::default()).await.map(drop),
            5 => {
                channel.queue_declare("mine".into(), QueueDeclareOptions::default(), table()).await.map(drop)
            }
            6 => channel.queue_declare("".into(), QueueDeclareOptions::default(), table()).await.map(drop),
            7 => {
                let bind = QueueBindOptions::default();
                channel
                    .queue_bind(own.as_str().into(), "signet.up".into(), "reports".into(), bind, table())
                    .await
            }
            8 => {
                let declare = ExchangeDeclareOptions::default();
                channel.exchange_declare("mine".into(), ExchangeKind::Fanout, declare, table()).await
            }
            9 => publish(&channel, "", &foreign).await,
            10 => publish(&channel, "", &own).await,
            11 => publish(&channel, "amq.direct", "x").await,
            12 => publish(&channel, "signet.live", "").await,
            13 => channel.basic_consume("signet.reports".into(), "".into(), consume, table()).await.map(drop),
            _ => {
                channel.basic_consume("signet.heartbeats".into(), "".into(), consume, table()).await.map(drop)
            }
        };
        let error = refused.expect_err(&format!("{forbidden} was allowed"));
        let ErrorKind::ProtocolError(said) = error.kind() else { panic!("{forbidden}: {error}") };
        assert_eq!(said.get_id(), 403, "{forbidden}: {error}");
    }

    // Nor has it business with the management API.
    let broker = reqwest::Url::parse(agent.broker.as_deref().unwrap()).unwrap();
    let mut url = reqwest::Url::parse(&Services::shared().management_url).unwrap();
    url.set_username(broker.username()).unwrap();
    url.set_password(broker.password()).unwrap();
    url.set_path("/api/queues");
    assert_eq!(Client::new().get(url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);

    // And through the bus, as an agent's own program would see it.
    let bus = bus(&agent);
    eventually(PATIENCE, "a refusal", async || {
        match bus.consume(&Queue::Agent(other.id.clone()), Mode::Exclusive, 1).await {
            Err(BusError::Refused(_)) => Some(()),
            Err(BusError::Down(_)) => None,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it reads another's queue"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_loses_its_user_and_its_connections() {
    let app = managed().await;
    let (gone, stays) = (welcomed(&app, "h1").await, welcomed(&app, "h2").await);
    let (ends, lives) = (connect(&gone).await.unwrap(), connect(&stays).await.unwrap());
    app.post(&format!("/api/agents/{}/revoke", gone.id), &json!({})).await.expect(200);
    assert!(!is_there(&app, &gone).await && is_there(&app, &stays).await);
    eventually(PATIENCE, "the broker to hang up", async || (!ends.status().connected()).then_some(())).await;
    assert!(lives.status().connected());
    assert!(connect(&gone).await.is_err());
    // A server that is deleted takes its agent's user along.
    let deleted = app.delete("/api/servers/h2").await;
    assert_eq!(deleted.status, 204);
    assert!(!is_there(&app, &stays).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_of_one_start_agree_whichever_controller_answers() {
    let app = managed().await;
    let beside = app.beside().await;
    let mut agent = welcomed(&app, "h1").await;
    let first = agent.broker.clone();
    agent.hello(&beside).await;
    assert_eq!(agent.broker, first);
    let connection = connect(&agent).await.unwrap();
    agent.restart();
    agent.hello(&app).await;
    assert_ne!(agent.broker, first, "each start has its own password");
    connect(&agent).await.unwrap();
    assert!(connection.status().connected(), "a new password breaks no connection");
    agent.broker = first;
    assert!(connect(&agent).await.is_err(), "the old password counts no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_management_api_nobody_is_welcomed_with_the_shared_user() {
    // Nobody listens on port 1.
    let app = start("http://who:s3cret@127.0.0.1:1").await;
    let agent = FakeAgent::with_key(&app, SigningKey::generate().unwrap(), "h1", "web").await;
    let refused = agent.say(&app, &agent.draft(&app).await).await;
    assert!(refused.headers.contains_key("retry-after"));
    let text = refused.expect(503)["detail"].as_str().unwrap().to_owned();
    assert!(text.contains("management API") && !text.contains("s3cret"), "{text}");
    // The twin: one that waits for an admin gets no broker, and so its answer.
    let mut other = FakeAgent::with_key(&app, SigningKey::generate().unwrap(), "h1", "web").await;
    assert_eq!(other.hello(&app).await.standing, Standing::Pending);
    assert_eq!(other.broker, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_that_were_left_behind_are_found() {
    let app = managed().await;
    let (gone, stays) = (welcomed(&app, "h1").await, welcomed(&app, "h2").await);
    // As if the management API had been away when the key was revoked.
    app.change("UPDATE agents SET standing = 'revoked' WHERE hostname = 'h1'").await;
    assert!(is_there(&app, &gone).await);
    // A controller looks when it starts.
    let _beside = app.beside().await;
    eventually(PATIENCE, "the user to be gone", async || (!is_there(&app, &gone).await).then_some(())).await;
    assert!(is_there(&app, &stays).await);
}
