//! How fast each part of a command goes when nothing else is done.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use signet_common::SigningKey;

use crate::parts::{Broker, MESSAGE_BYTES, spawn, take};

/// Processes that run at the same time, as many as an agent has slots.
const SLOTS: usize = 8;
/// Confirms that are outstanding.
const WINDOW: usize = 100;

/// Rates a second.
#[derive(Serialize)]
pub(crate) struct Rates {
    spawns: f64,
    /// On one core.
    signatures: f64,
    publishes: f64,
}

pub(crate) async fn run(seconds: f64) -> anyhow::Result<Rates> {
    let span = Duration::from_secs_f64(seconds);
    Ok(Rates { spawns: spawns(span)?, signatures: signatures(span)?, publishes: publishes(span).await? })
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn rate(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

fn spawns(span: Duration) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let slot = move || {
        let mut count = 0;
        while begun.elapsed() < span {
            spawn()?;
            count += 1;
        }
        anyhow::Ok(count)
    };
    let slots: Vec<_> = (0..SLOTS).map(|_| std::thread::spawn(slot)).collect();
    let mut all = 0;
    for slot in slots {
        all += slot.join().ok().context("a thread panicked")??;
    }
    Ok(rate(all, begun))
}

fn signatures(span: Duration) -> anyhow::Result<f64> {
    let key = SigningKey::generate()?;
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < span {
        key.sign(&[b'x'; MESSAGE_BYTES])?;
        count += 1;
    }
    Ok(rate(count, begun))
}

async fn publishes(span: Duration) -> anyhow::Result<f64> {
    let (sender, receiver) = (Broker::connect().await?, Broker::connect().await?);
    let mut consumer = receiver.consume("floor.rate", 1_000).await?;
    let body = [b'x'; MESSAGE_BYTES];
    let send = async {
        let (begun, mut count) = (Instant::now(), 0);
        let mut outstanding: FuturesUnordered<_> =
            (0..WINDOW).map(|_| sender.publish("floor.rate", &body)).collect();
        while let Some(confirmed) = outstanding.next().await {
            confirmed?;
            count += 1;
            if begun.elapsed() < span {
                outstanding.push(sender.publish("floor.rate", &body));
            }
        }
        anyhow::Ok(rate(count, begun))
    };
    let collect = async {
        loop {
            if let Err(error) = take(&mut consumer).await {
                break Err(error);
            }
        }
    };
    tokio::select! {
        rate = send => rate,
        ended = collect => ended,
    }
}
