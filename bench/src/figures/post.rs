//! POST until the result is visible, one command after another on one agent.
//!
//! Visible means: `GET /api/tasks/{task_id}/results` shows it. It is asked for on the connection of the POST, at once
//! and then a millisecond after each answer, of Signet and of its peer alike.

use super::Options;
use crate::api::Api;
use crate::floor;
use crate::limits::{POSTS, POSTS_WARM_UP};
use crate::peer::Peer;
use crate::stage::{Ground, Stage, Wire};
use crate::stats::{Runs, percentile};
use crate::table::{Other, Row, Target};

const HOST: &str = "bench";

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new().await?;
    let mut stage = Stage::new(Wire::Plain).await?;
    stage.agent(HOST).await?;
    let peer = Peer::start(&options.cache, HOST).await?;
    let (mut floors, mut ours, mut peers) = (Runs::new(), Runs::new(), Runs::new());
    for _ in 0..options.runs {
        let samples = POSTS.to_string();
        let floor: Vec<f64> = floor::run(&ground, &["post", "--samples", &samples]).await?;
        floors.push(percentile(&floor, 50.0));
        ours.push(one_after_another(&stage.api).await?);
        peers.push(one_after_another(&peer.api).await?);
    }
    let row = |name: &str, other, runs, target| Row {
        figure: format!("POST → result visible, p50, {name}"),
        unit: "ms",
        ours: ours.clone(),
        other: Some(Other { name: other, runs }),
        target,
    };
    Ok(vec![
        row("beside its floor", "floor", floors, Target::RatioAtMost(2.0)),
        row("beside the peer", "peer", peers, Target::Below),
    ])
}

/// The median in milliseconds.
async fn one_after_another(api: &Api) -> anyhow::Result<f64> {
    let mut milliseconds = Vec::with_capacity(POSTS);
    for n in 0..POSTS_WARM_UP + POSTS {
        let took = api.post_and_see(HOST).await?;
        if n >= POSTS_WARM_UP {
            milliseconds.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(percentile(&milliseconds, 50.0))
}
