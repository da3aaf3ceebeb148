//! Publishing: what the database wants sent goes to the bus, one publish per host, confirms pipelined.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use signet_common::bus::{Address, Bus, BusError, Published, Queue};
use signet_common::envelope::{Envelope, PayloadType};
use signet_common::fault::{self, Point};
use signet_common::limits::CONFIRMS_OUTSTANDING_MAX;
use signet_common::{AgentId, Jti, SigningKey};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::service::Dispatch;
use super::store::{self, Due};
use crate::error::{Error, Result};
use crate::keys::FleetKeys;
use crate::limits::BATCH_ROWS_MAX;
use crate::store::in_transaction;

/// One publish.
pub(super) type Publish = (AgentId, Envelope);

/// Publishes bursts until `stop`. What a broken connection swallows is due again soon by its row.
pub(super) async fn run(
    bus: Arc<dyn Bus>,
    mut bursts: mpsc::Receiver<Vec<Publish>>,
    stop: CancellationToken,
) {
    let mut flying = stream::FuturesUnordered::new();
    let mut waiting: std::collections::VecDeque<Publish> = std::collections::VecDeque::new();
    loop {
        while flying.len() < CONFIRMS_OUTSTANDING_MAX
            && let Some((agent, envelope)) = waiting.pop_front()
        {
            flying.push(publish(bus.clone(), agent, envelope));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(()) = flying.next(), if !flying.is_empty() => {}
            burst = bursts.recv(), if waiting.is_empty() => match burst {
                Some(burst) => waiting.extend(burst),
                None => break,
            },
        }
    }
    // What is in flight gets its confirm; the rest is due again by its rows.
    while flying.next().await.is_some() {}
}

async fn publish(bus: Arc<dyn Bus>, agent: AgentId, envelope: Envelope) {
    match try_publish(&*bus, &agent, envelope).await {
        Ok(Published::Confirmed) => {
            metrics::counter!("signet_published_total", "result" => "confirmed").increment(1)
        }
        Ok(Published::Refused) => {
            metrics::counter!("signet_published_total", "result" => "refused").increment(1)
        }
        Ok(Published::Returned) => {
            metrics::counter!("signet_published_total", "result" => "returned").increment(1)
        }
        Err(error) => {
            metrics::counter!("signet_published_total", "result" => "failed").increment(1);
            tracing::debug!(%agent, %error, "not published; it is due again later");
        }
    }
}

async fn try_publish(bus: &dyn Bus, agent: &AgentId, envelope: Envelope) -> Result<Published, BusError> {
    let address = Address::Agent(agent.clone());
    fault::hit(Point::ControllerBeforePublish);
    let published = bus.publish(&address, envelope.clone()).await?;
    fault::hit(Point::ControllerAfterConfirm);
    if published != Published::Returned {
        return Ok(published);
    }
    // The broker lost the queue, or its data directory.
    bus.declare(&Queue::Agent(agent.clone())).await?;
    bus.publish(&address, envelope).await
}

/// The same bytes and the same `jti` under another key's signature.
fn signed_anew(message: &mut store::Message, key: &SigningKey) -> Result<()> {
    let kind = PayloadType::ALL.into_iter().find(|k| k.as_str() == message.envelope.payload_type);
    let kind = kind.ok_or_else(|| Error::Internal(format!("unknown type of message {}", message.jti)))?;
    message.envelope = Envelope::sign_bytes(key, kind, message.envelope.body.clone())
        .map_err(|e| Error::Internal(e.to_string()))?;
    Ok(())
}

impl Dispatch {
    /// Publishes deliveries that were marked as sent before, with their stored messages, to hosts that believe these keys.
    pub(super) async fn publish_due(&self, due: Vec<Due>, keys: &FleetKeys) -> Result<()> {
        let ids: Vec<Jti> = {
            let mut ids: Vec<Jti> = due.iter().map(|d| d.jti.clone()).collect();
            ids.sort();
            ids.dedup();
            ids
        };
        let mut messages = store::messages(self.store(), &ids).await?;
        self.sign_anew(&mut messages, keys).await?;
        let burst: Vec<Publish> = due
            .into_iter()
            .filter_map(|d| Some((d.agent_id, messages.get(&d.jti)?.envelope.clone())))
            .collect();
        self.publish_burst(burst);
        Ok(())
    }

    /// A stored message whose key is no longer current gets the current one's signature: same bytes, same `jti`. One that
    /// another controller was quicker with is left out, and comes again with the next look.
    async fn sign_anew(&self, messages: &mut HashMap<Jti, store::Message>, keys: &FleetKeys) -> Result<()> {
        let key = keys.signing();
        let current = key.public().id();
        let mut stale: Vec<store::Message> =
            messages.values().filter(|m| m.envelope.keyid != current.as_str()).cloned().collect();
        // Whoever does the same locks them in the same order.
        stale.sort_by(|a, b| a.jti.cmp(&b.jti));
        for some in stale.chunks(BATCH_ROWS_MAX) {
            let (mut signed, key) = (some.to_vec(), key.clone());
            let sign = move || -> Result<Vec<store::Message>> {
                signed.iter_mut().try_for_each(|message| signed_anew(message, &key))?;
                Ok(signed)
            };
            let signed =
                tokio::task::spawn_blocking(sign).await.map_err(|e| Error::Internal(e.to_string()))??;
            let outdated = in_transaction!(self.store(), |tx| -> Result<Vec<Jti>> {
                let mut outdated = Vec::new();
                for (message, old) in signed.iter().zip(some) {
                    if !store::update_signature(tx, message, &old.envelope.keyid).await? {
                        outdated.push(message.jti.clone());
                    }
                }
                Ok(outdated)
            })?;
            messages.extend(signed.into_iter().map(|message| (message.jti.clone(), message)));
            outdated.iter().for_each(|jti| drop(messages.remove(jti)));
        }
        Ok(())
    }
}
