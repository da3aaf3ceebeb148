//! Commands a second with the audit trail, beside the same controller built without it.

use super::{Options, throughput};
use crate::stage::{Stage, Wire};
use crate::stats::Runs;
use crate::table::{Other, Row, Target};

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let (mut with, mut without) = (Runs::new(), Runs::new());
    let mut ours = Stage::new(Wire::Plain).await?;
    let mut other = Stage::of("signet-controller-without-audit", Wire::Plain).await?;
    ours.agent("with").await?;
    other.agent("without").await?;
    let (our_results, other_results) = (ours.results().await?, other.results().await?);
    for _ in 0..options.runs {
        with.push(throughput::all_at_once(&ours.api, "with", &our_results).await?);
        without.push(throughput::all_at_once(&other.api, "without", &other_results).await?);
    }
    Ok(vec![Row {
        figure: "commands on one agent, with the audit trail".into(),
        unit: "/s",
        ours: with,
        other: Some(Other { name: "without", runs: without }),
        target: Target::RatioAtLeast(0.9),
    }])
}
