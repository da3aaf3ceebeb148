//! Thousands of simulated agents in this process: real keys, real messages, the real broker. Only the host below them is
//! missing: a command is over at once, with exit code 0.

mod agent;
mod hello;

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Role};
use signet_common::bus::{Bus as _, Health};
use tokio::task::JoinSet;

use self::agent::Agent;
use crate::api::Api;
use crate::keys::PrimePool;
use crate::limits::{AGENTS_PER_CONNECTION, HELLOS};

/// Agents at work, until this is dropped.
pub(crate) struct Fleet {
    agents: JoinSet<anyhow::Result<()>>,
}

impl Fleet {
    /// Enrols so many agents, starts them, and waits until the controller sees all of them online.
    pub(crate) async fn start(api: &Api, primes: &PrimePool, count: usize) -> anyhow::Result<Self> {
        ensure!(count <= primes.len(), "there are keys for {} agents", primes.len());
        let mut agents = JoinSet::new();
        for first in (0..count).step_by(AGENTS_PER_CONNECTION) {
            let batch = first..count.min(first + AGENTS_PER_CONNECTION);
            let keys: Vec<_> = batch.clone().map(|n| primes.key(n)).collect::<Result<_, _>>()?;
            let hellos = batch.zip(keys).map(|(n, key)| hello::say(api, key, n));
            let welcomed: Vec<_> = stream::iter(hellos).buffer_unordered(HELLOS).try_collect().await?;
            let url =
                welcomed.first().map(|welcomed| welcomed.broker.clone()).context("nobody was welcomed")?;
            let bus = connect(&url).await?;
            for welcomed in welcomed {
                agents.spawn(Agent::new(welcomed, Arc::clone(&bus)).run());
            }
        }
        api.wait_online(count).await?;
        Ok(Self { agents })
    }

    /// Whether all agents are still at work.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.agents.try_join_next() {
            Some(ended) => ended?.context("a simulated agent"),
            None => Ok(()),
        }
    }
}

/// One connection for many agents.
async fn connect(url: &str) -> anyhow::Result<Arc<AmqpBus>> {
    let bus = AmqpBus::start(AmqpOptions::new(url, "signet-bench", Role::Agent))?;
    bus.health().wait_for(|health| *health == Health::Up).await?;
    Ok(Arc::new(bus))
}
