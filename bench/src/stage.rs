//! Where Signet is measured: its programs, with a database and a vhost of their own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use signet_testkit::{MysqlDatabase, Services, Vhost, fresh_mysql_database, fresh_vhost};
use sqlx::{AssertSqlSafe, MySqlPool};
use tempfile::TempDir;

use crate::api::Api;
use crate::limits::{PATIENCE, STORED_EVERY};
use crate::process::{Running, command, program};

const ADMIN_TOKEN: &str = "bench-admin-token";
/// With this an agent enrols.
pub(crate) const JOIN_TOKEN: &str = "bench-join-token";

/// How agents reach the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    Tls,
}

/// A database and a vhost, gone with this value, and a directory for all else.
pub(crate) struct Ground {
    pub(crate) database: MysqlDatabase,
    pub(crate) vhost: Vhost,
    pub(crate) directory: TempDir,
}

impl Ground {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let (database, vhost) = tokio::join!(fresh_mysql_database(), fresh_vhost());
        Ok(Self { database, vhost, directory: tempfile::tempdir()? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A controller on MariaDB and RabbitMQ, and its agents. They end in this order: agents, controller, the ground below.
pub(crate) struct Stage {
    pub(crate) api: Api,
    pub(crate) agents: Vec<Running>,
    pub(crate) controller: Running,
    ground: Ground,
    wire: Wire,
}

impl Stage {
    /// Starts a controller and waits until it is ready.
    pub(crate) async fn new(wire: Wire) -> anyhow::Result<Self> {
        Self::of("signet-controller", wire).await
    }

    /// The same with further settings in the controller's environment.
    pub(crate) async fn set(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start("signet-controller", Wire::Plain, settings).await
    }

    /// Starts this program as the controller and waits until it is ready.
    pub(crate) async fn of(name: &str, wire: Wire) -> anyhow::Result<Self> {
        Self::start(name, wire, &[]).await
    }

    async fn start(name: &str, wire: Wire, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let ground = Ground::new().await?;
        let mut controller = command(program(name)?);
        controller
            .env("SIGNET_DATABASE_URL", ground.database.url())
            .env("SIGNET_AMQP_URL", ground.vhost.url())
            .env("SIGNET_LISTEN", "127.0.0.1:0")
            .env("SIGNET_DATA_DIR", ground.path().join("controller"))
            .env("SIGNET_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("SIGNET_JOIN_TOKEN", JOIN_TOKEN)
            .envs(settings.iter().copied());
        if wire == Wire::Tls {
            controller.env("SIGNET_AGENT_AMQP_URL", ground.vhost.tls_url());
        }
        let log = ground.path().join("controller.log");
        let (controller, base, _) = Running::start_until(controller, &log, "signet: ready on ")?;
        let api = Api::new(&base, Some(ADMIN_TOKEN))?;
        Ok(Self { api, agents: Vec::new(), controller, ground, wire })
    }

    /// Starts a true agent with this name and waits until it is online.
    pub(crate) async fn agent(&mut self, hostname: &str) -> anyhow::Result<()> {
        self.agent_by(command(program("signet-agent")?), hostname).await
    }

    /// The same in a mount namespace in which this directory is `/srv`. That takes root.
    pub(crate) async fn agent_with_srv(&mut self, hostname: &str, srv: &Path) -> anyhow::Result<()> {
        let mut agent = command("unshare");
        let script = "mount --bind \"$1\" /srv && shift && exec \"$@\"";
        agent.args(["--mount", "sh", "-c", script, "sh"]).arg(srv).arg(program("signet-agent")?);
        self.agent_by(agent, hostname).await
    }

    async fn agent_by(&mut self, mut agent: Command, hostname: &str) -> anyhow::Result<()> {
        agent
            .args(["--controller", self.api.base(), "--join-token", JOIN_TOKEN, "--hostname", hostname])
            .arg("--data-dir")
            .arg(self.ground.path().join(hostname));
        if self.wire == Wire::Tls {
            agent.env("SSL_CERT_FILE", &Services::shared().amqp_ca_file);
        }
        let log = self.ground.path().join(format!("{hostname}.log"));
        let agent = Running::start(agent, &log)?;
        self.api.wait_online(self.agents.len() + 1).await.with_context(|| agent.last_words())?;
        self.agents.push(agent);
        Ok(())
    }

    /// Counts the commands that have succeeded.
    pub(crate) async fn results(&self) -> anyhow::Result<Stored> {
        let count = "SELECT COUNT(*) FROM deliveries WHERE state = 'succeeded'";
        Stored::open(&self.ground.database, count).await
    }
}

/// Counts stored results.
pub(crate) struct Stored {
    pool: MySqlPool,
    count: &'static str,
}

impl Stored {
    /// With this statement, which gives one number.
    pub(crate) async fn open(database: &MysqlDatabase, count: &'static str) -> anyhow::Result<Self> {
        Ok(Self { pool: MySqlPool::connect(database.url()).await?, count })
    }

    pub(crate) async fn count(&self) -> anyhow::Result<usize> {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(self.count)).fetch_one(&self.pool).await?;
        Ok(usize::try_from(count)?)
    }

    /// Waits until so many are stored.
    pub(crate) async fn wait(&self, wanted: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let count = self.count().await?;
            if count >= wanted {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{count} of {wanted} results are stored");
            // The fewer are missing, the sooner it is looked again: counting takes from what is measured.
            let missing = u32::try_from(wanted - count).unwrap_or(u32::MAX);
            tokio::time::sleep(STORED_EVERY.saturating_mul(missing).min(Duration::from_millis(50))).await;
        }
    }
}
