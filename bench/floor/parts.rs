//! The parts that floors are made of.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use sqlx::{Connection as _, MySqlConnection};

/// A message's size in bytes: about that of a signed command.
pub(crate) const MESSAGE_BYTES: usize = 1_024;
/// AMQP's number for a persistent message.
const PERSISTENT: u8 = 2;

pub(crate) fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| name.to_owned())
}

/// A channel on a connection of its own.
pub(crate) struct Broker {
    _connection: Connection,
    channel: Channel,
}

impl Broker {
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let url = variable("FLOOR_AMQP_URL")?;
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { _connection: connection, channel })
    }

    /// Makes a durable queue.
    pub(crate) async fn declare(&self, queue: &str) -> anyhow::Result<()> {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
        Ok(())
    }

    /// Makes a durable queue and consumes it.
    pub(crate) async fn consume(&self, queue: &str, prefetch: u16) -> anyhow::Result<Consumer> {
        self.declare(queue).await?;
        self.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        Ok(self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?)
    }

    /// Publishes a persistent message and waits for its confirm.
    pub(crate) async fn publish(&self, queue: &str, body: &[u8]) -> anyhow::Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published =
            self.channel.basic_publish("".into(), queue.into(), options, body, properties).await?;
        let confirmation = published.await?;
        ensure!(matches!(confirmation, Confirmation::Ack(None)), "the broker did not take a message");
        Ok(())
    }
}

/// Takes one message and acknowledges it.
pub(crate) async fn take(consumer: &mut Consumer) -> anyhow::Result<()> {
    let delivery = consumer.next().await.context("the consumer ended")??;
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}

/// A table of one's own, into which one row goes in a commit.
pub(crate) struct Database(MySqlConnection);

impl Database {
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let mut connection = MySqlConnection::connect(&variable("FLOOR_MYSQL_URL")?).await?;
        let table =
            "CREATE TABLE IF NOT EXISTS floor (id BIGINT PRIMARY KEY AUTO_INCREMENT, body BLOB NOT NULL)";
        sqlx::query(table).execute(&mut connection).await?;
        Ok(Self(connection))
    }

    pub(crate) async fn commit(&mut self, body: &[u8]) -> anyhow::Result<()> {
        sqlx::query("INSERT INTO floor (body) VALUES (?)").bind(body).execute(&mut self.0).await?;
        Ok(())
    }
}

/// A file that is appended to and synced.
pub(crate) struct Journal(File);

impl Journal {
    pub(crate) fn create() -> anyhow::Result<Self> {
        Ok(Self(File::create(Path::new(&variable("FLOOR_DIR")?).join("floor.journal"))?))
    }

    pub(crate) fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(body)?;
        Ok(self.0.sync_data()?)
    }
}

/// Runs `sh -c true`.
pub(crate) fn spawn() -> anyhow::Result<()> {
    let null = Stdio::null;
    let status =
        Command::new("sh").args(["-c", "true"]).stdin(null()).stdout(null()).stderr(null()).status()?;
    ensure!(status.success(), "sh -c true: {status}");
    Ok(())
}
