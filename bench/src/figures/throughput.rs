//! Commands a second on one agent: posted over a handful of connections, each post after the answer to the one before,
//! and counted until the last result is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Deserialize;
use tokio::task::JoinSet;

use super::Options;
use crate::api::{Api, Whom};
use crate::floor;
use crate::limits::{COMMANDS, POSTERS, POSTS_WARM_UP};
use crate::peer::Peer;
use crate::stage::{Ground, Stage, Stored, Wire};
use crate::stats::Runs;
use crate::table::{Other, Row, Target};

const HOST: &str = "bench";

/// Rates a second, as the floor prints them.
#[derive(Deserialize)]
struct Rates {
    spawns: f64,
    signatures: f64,
    publishes: f64,
}

impl Rates {
    /// Two signatures a command: of the command and of its report.
    fn slowest(&self) -> f64 {
        self.spawns.min(self.signatures / 2.0).min(self.publishes)
    }
}

pub(super) async fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let ground = Ground::new().await?;
    let mut stage = Stage::new(Wire::Plain).await?;
    stage.agent(HOST).await?;
    let peer = Peer::start(&options.cache, HOST).await?;
    let (our_results, peer_results) = (stage.results().await?, peer.results().await?);
    let (mut floors, mut ours, mut peers) = (Runs::new(), Runs::new(), Runs::new());
    for _ in 0..options.runs {
        let rates: Rates = floor::run(&ground, &["rates", "--seconds", "1"]).await?;
        floors.push(rates.slowest());
        ours.push(all_at_once(&stage.api, HOST, &our_results).await?);
        peers.push(all_at_once(&peer.api, HOST, &peer_results).await?);
    }
    let row = |name: &str, other, runs, target| Row {
        figure: format!("commands on one agent, {name}"),
        unit: "/s",
        ours: ours.clone(),
        other: Some(Other { name: other, runs }),
        target,
    };
    Ok(vec![
        row("beside its floor", "floor", floors, Target::RatioAtLeast(0.5)),
        row("beside the peer", "peer", peers, Target::Above),
    ])
}

/// Commands a second.
pub(super) async fn all_at_once(api: &Api, host: &'static str, stored: &Stored) -> anyhow::Result<f64> {
    for _ in 0..POSTS_WARM_UP {
        api.post_and_see(host).await?;
    }
    let before = stored.count().await?;
    let left = Arc::new(AtomicUsize::new(COMMANDS));
    let mut posters = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..POSTERS {
        let (api, left) = (api.apart()?, Arc::clone(&left));
        posters.spawn(async move {
            let take = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                api.post(Whom::Node(host)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = posters.join_next().await {
        done??;
    }
    stored.wait(before + COMMANDS).await?;
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let commands = COMMANDS as f64;
    Ok(commands / begun.elapsed().as_secs_f64())
}
