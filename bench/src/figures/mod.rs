//! The figures, one module each.

mod access;
mod agent_idle;
mod audit;
mod deploy;
mod fan_out;
mod heartbeats;
mod post;
mod throughput;
mod up;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::table::Line;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// POST until the result is visible, one after another: beside its floor, and beside the peer
    Post,
    /// Commands a second on one agent: beside its floor, and beside the peer
    Throughput,
    /// Commands a second on one agent, beside a controller that is built without the audit trail
    Audit,
    /// A request's credential and right beside one row of the database, and what refused log-ins take
    Access,
    /// One command to 1,000 simulated agents, beside its floor
    FanOut,
    /// An idle agent's memory and CPU, without and with TLS
    AgentIdle,
    /// The controller's CPU and memory with 5,000 simulated agents that say that they live
    Heartbeats,
    /// One repository to 10 hosts, by agents and over SSH, beside plain git. Takes root, sshd and ansible-playbook
    Deploy,
    /// `signet up`: memory, and how long it takes until it is ready
    Up,
}

/// How it is measured.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Runs of each side, one of each in turn.
    pub(crate) runs: usize,
    /// How long CPU is counted, in each run.
    pub(crate) window: Duration,
    /// Simulated agents, when another number than usual is asked for.
    pub(crate) agents: Option<usize>,
    /// What is made once: primes, and the peer's libraries.
    pub(crate) cache: PathBuf,
}

impl Figure {
    /// Measures it.
    pub(crate) async fn measure(self, options: &Options) -> anyhow::Result<Vec<Line>> {
        let rows = match self {
            Self::Post => post::measure(options).await?,
            Self::Throughput => throughput::measure(options).await?,
            Self::Audit => audit::measure(options).await?,
            Self::Access => access::measure(options).await?,
            Self::FanOut => fan_out::measure(options).await?,
            Self::AgentIdle => agent_idle::measure(options).await?,
            Self::Heartbeats => heartbeats::measure(options).await?,
            Self::Deploy => return deploy::measure(options).await,
            Self::Up => up::measure(options).await?,
        };
        Ok(rows.into_iter().map(Line::Measured).collect())
    }
}
