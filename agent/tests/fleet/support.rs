//! An agent inside the test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use signet_agent::run::CgroupChoice;
use signet_agent::{AgentConfig, BusSource};
use signet_common::bus::Bus;
use signet_common::ids::AgentId;
use signet_testkit::eventually;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::controller::{Controller, PATIENCE};

/// A running agent.
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

pub(crate) fn config(controller: &Controller, data_dir: &Path) -> AgentConfig {
    AgentConfig {
        join: Some(controller.token.clone()),
        fingerprint: controller.token.fingerprint.clone(),
        launcher: PathBuf::from(env!("CARGO_BIN_EXE_signet-agent")),
        cgroup: CgroupChoice::Never,
        ..AgentConfig::new(data_dir.to_owned(), controller.url.clone(), "web1".parse().unwrap())
    }
}

impl Agent {
    /// Starts one and waits for its hello and its queue.
    pub(crate) async fn start(controller: &Controller, config: AgentConfig) -> Self {
        Self::start_on(controller, config, controller.bus.clone()).await
    }

    /// Likewise, with its own connection to the bus.
    pub(crate) async fn start_on(controller: &Controller, config: AgentConfig, bus: Arc<dyn Bus>) -> Self {
        let before = controller.state().hellos.len();
        let agent = Self::begin_on(config, bus).await;
        controller.wait("a hello", |state| (state.hellos.len() > before).then_some(())).await;
        agent
    }

    /// Starts one and does not wait for its hello.
    pub(crate) async fn begin(controller: &Controller, config: AgentConfig) -> Self {
        Self::begin_on(config, controller.bus.clone()).await
    }

    async fn begin_on(config: AgentConfig, bus: Arc<dyn Bus>) -> Self {
        // `RUST_LOG` shows what the agent does; a second test of the same process finds it set.
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init()
            .ok();
        let data_dir = config.data_dir.clone();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(signet_agent::run(config, BusSource::Given(bus), shutdown.clone()));
        let read = async || signet_agent::identity::read_key(&data_dir).ok().flatten();
        let key = eventually(PATIENCE, "the agent's key", read).await;
        Self { id: key.public().agent_id(), shutdown, running }
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE * 5, self.running).await.unwrap().unwrap().unwrap();
    }

    /// Asks it to stop and doesn't wait.
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }
}
