//! One command to many hosts: as many messages published one after another, each confirmed before the next, as many
//! collected, and as many signatures made and verified.

use std::time::Instant;

use anyhow::ensure;
use serde::Serialize;
use signet_common::SigningKey;

use crate::parts::{Broker, MESSAGE_BYTES, take};

/// Milliseconds of each part; the floor is their sum.
#[derive(Serialize)]
pub(crate) struct Parts {
    published: f64,
    collected: f64,
    signed: f64,
    verified: f64,
}

pub(crate) async fn run(hosts: usize) -> anyhow::Result<Parts> {
    let broker = Broker::connect().await?;
    let key = SigningKey::generate()?;
    let body = [b'x'; MESSAGE_BYTES];
    broker.declare("floor.all").await?;
    let since = |begun: Instant| begun.elapsed().as_secs_f64() * 1e3;

    let begun = Instant::now();
    for _ in 0..hosts {
        broker.publish("floor.all", &body).await?;
    }
    let published = since(begun);

    let receiver = Broker::connect().await?;
    let begun = Instant::now();
    let mut consumer = receiver.consume("floor.all", 1_000).await?;
    for _ in 0..hosts {
        take(&mut consumer).await?;
    }
    let collected = since(begun);

    let begun = Instant::now();
    let signatures: Vec<_> = (0..hosts).map(|_| key.sign(&body)).collect::<Result<_, _>>()?;
    let signed = since(begun);

    let begun = Instant::now();
    for signature in &signatures {
        ensure!(key.public().verifies(&body, signature), "a signature does not verify");
    }
    Ok(Parts { published, collected, signed, verified: since(begun) })
}
