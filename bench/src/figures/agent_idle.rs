//! An idle agent's memory and CPU: it consumes its queue and says every 10 s that it lives. It has run a few commands
//! before, as every agent has. One agent without and one with TLS to the broker, side by side.

use super::Options;
use crate::limits::{POSTS_WARM_UP, SETTLE};
use crate::process::{Running, cpu_share};
use crate::stage::{Stage, Wire};
use crate::stats::Runs;
use crate::table::{Row, Target};

const HOST: &str = "bench";

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let [mut plain, mut tls] = [Taken::new(), Taken::new()];
    for _ in 0..options.runs {
        let [mut one, mut other] = [Stage::new(Wire::Plain).await?, Stage::new(Wire::Tls).await?];
        worked(&mut one).await?;
        worked(&mut other).await?;
        tokio::time::sleep(SETTLE).await;
        tokio::try_join!(plain.idle(&one.agents[0], options), tls.idle(&other.agents[0], options))?;
    }
    let row = |figure: &str, unit, ours, most| Row {
        figure: format!("agent, idle: {figure}"),
        unit,
        ours,
        other: None,
        target: Target::AtMost(most),
    };
    Ok(vec![
        row("RSS without TLS", "MiB", plain.memory, 6.0),
        row("RSS with TLS", "MiB", tls.memory, 8.0),
        row("CPU without TLS", "% of a core", plain.cpu, 0.1),
        row("CPU with TLS", "% of a core", tls.cpu, 0.1),
    ])
}

async fn worked(stage: &mut Stage) -> anyhow::Result<()> {
    stage.agent(HOST).await?;
    for _ in 0..POSTS_WARM_UP {
        stage.api.post_and_see(HOST).await?;
    }
    Ok(())
}

/// What an agent took, a figure a run.
struct Taken {
    cpu: Runs,
    memory: Runs,
}

impl Taken {
    fn new() -> Self {
        Self { cpu: Runs::new(), memory: Runs::new() }
    }

    async fn idle(&mut self, agent: &Running, options: &Options) -> anyhow::Result<()> {
        self.cpu.push(cpu_share(agent, options.window).await?);
        self.memory.push(agent.memory()?);
        Ok(())
    }
}
