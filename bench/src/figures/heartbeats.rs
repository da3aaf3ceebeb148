//! The controller with thousands of agents that only say, every 10 s, that they live.

use super::Options;
use crate::fleet::Fleet;
use crate::keys::PrimePool;
use crate::limits::{HEARTBEAT_AGENTS, SETTLE};
use crate::process::cpu_share;
use crate::stage::{Stage, Wire};
use crate::stats::Runs;
use crate::table::{Row, Target};

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let agents = options.agents.unwrap_or(HEARTBEAT_AGENTS);
    let primes = PrimePool::open(&options.cache)?;
    let stage = Stage::new(Wire::Plain).await?;
    let mut fleet = Fleet::start(&stage.api, &primes, agents).await?;
    tokio::time::sleep(SETTLE).await;
    let (mut cpu, mut memory) = (Runs::new(), Runs::new());
    for _ in 0..options.runs {
        cpu.push(cpu_share(&stage.controller, options.window).await?);
        memory.push(stage.controller.memory()?);
    }
    fleet.check()?;
    // Whoever was lost meanwhile would make it look better than it is.
    stage.api.wait_online(agents).await?;
    let row = |figure: &str, unit, ours, most| Row {
        figure: format!("controller with {agents} agents, {figure}"),
        unit,
        ours,
        other: None,
        target: Target::AtMost(most),
    };
    Ok(vec![row("CPU", "% of a core", cpu, 20.0), row("RSS", "MiB", memory, 200.0)])
}
