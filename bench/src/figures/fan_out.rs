//! One command to many simulated agents, until every result is stored.

use std::time::Instant;

use serde::Deserialize;

use super::Options;
use crate::api::Whom;
use crate::fleet::Fleet;
use crate::floor;
use crate::keys::PrimePool;
use crate::limits::FAN_OUT_AGENTS;
use crate::stage::{Ground, Stage, Wire};
use crate::stats::Runs;
use crate::table::{Other, Row, Target};

/// Milliseconds of each part, as the floor prints them.
#[derive(Deserialize)]
struct Parts {
    published: f64,
    collected: f64,
    signed: f64,
    verified: f64,
}

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let agents = options.agents.unwrap_or(FAN_OUT_AGENTS);
    let primes = PrimePool::open(&options.cache)?;
    let (ground, stage) = (Ground::new().await?, Stage::new(Wire::Plain).await?);
    let results = stage.results().await?;
    let mut fleet = Fleet::start(&stage.api, &primes, agents).await?;
    let (mut floors, mut ours) = (Runs::new(), Runs::new());
    for _ in 0..options.runs {
        let parts: Parts = floor::run(&ground, &["fan-out", "--hosts", &agents.to_string()]).await?;
        floors.push(parts.published + parts.collected + parts.signed + parts.verified);
        let before = results.count().await?;
        let begun = Instant::now();
        stage.api.post(Whom::All).await?;
        results.wait(before + agents).await?;
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        fleet.check()?;
    }
    Ok(vec![Row {
        figure: format!("one command to {agents} agents, all results stored"),
        unit: "ms",
        ours,
        other: Some(Other { name: "floor", runs: floors }),
        target: Target::RatioAtMost(2.0),
    }])
}
