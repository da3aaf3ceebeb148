//! One command there and back: two commits, two signatures, one persistent and confirmed message each way, two synced
//! appends, one process.

use std::time::Instant;

use signet_common::SigningKey;

use crate::parts::{Broker, Database, Journal, MESSAGE_BYTES, spawn, take};

/// The first ones are not timed.
const WARM_UP: usize = 20;

/// Milliseconds of each.
pub(crate) async fn run(samples: usize) -> anyhow::Result<Vec<f64>> {
    let key = SigningKey::generate()?;
    let (controller, agent) = (Broker::connect().await?, Broker::connect().await?);
    let (mut down, mut up) =
        (agent.consume("floor.down", 1).await?, controller.consume("floor.up", 1).await?);
    let (mut database, mut journal) = (Database::connect().await?, Journal::create()?);
    let body = [b'x'; MESSAGE_BYTES];
    let mut milliseconds = Vec::with_capacity(samples);
    for n in 0..WARM_UP + samples {
        let begun = Instant::now();
        // The controller: sign, store, send.
        key.sign(&body)?;
        database.commit(&body).await?;
        let (sent, taken) = tokio::join!(controller.publish("floor.down", &body), take(&mut down));
        sent.and(taken)?;
        // The agent: write down, run, write down, sign, send.
        journal.append(&body)?;
        spawn()?;
        journal.append(&body)?;
        key.sign(&body)?;
        let (sent, taken) = tokio::join!(agent.publish("floor.up", &body), take(&mut up));
        sent.and(taken)?;
        // The controller: store.
        database.commit(&body).await?;
        if n >= WARM_UP {
            milliseconds.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(milliseconds)
}
