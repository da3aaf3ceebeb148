//! Consuming one of the controller's own queues: batch by batch, each acknowledged once it is stored.

use std::future::Future;
use std::time::Duration;

use serde::de::DeserializeOwned;
use signet_common::AgentId;
use signet_common::bus::{BusError, Consumer, Mode, Queue, Taken};
use signet_common::envelope::{Audience, PayloadType, Refusal};
use signet_common::messages::{Heartbeat, Report};
use tokio_util::sync::CancellationToken;

use super::service::Dispatch;
use crate::error::{Error, Result};
use crate::limits::INTAKE_PAUSE_MILLISECONDS;

/// What takes in the messages of one queue.
pub(super) trait Inbox: Send {
    /// The queue.
    const QUEUE: Queue;
    /// How many messages are in its hands at most.
    const PREFETCH: u16;

    /// Takes `first` and what else is there, stores it, and says up to which tag it can be acknowledged.
    fn take_batch(
        &mut self,
        consumer: &mut dyn Consumer,
        first: Taken,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// What is to happen after the acknowledgement.
    fn acknowledged(&self) -> impl Future<Output = ()> + Send;
}

/// Consumes until `stop`. Without the database or the broker it pauses, and gives nothing back.
pub(super) async fn run(dispatch: Dispatch, mut inbox: impl Inbox, stop: CancellationToken) {
    loop {
        let consumer = tokio::select! {
            () = stop.cancelled() => return,
            consumer = subscribe(&dispatch, &inbox) => consumer,
        };
        let done = match consumer {
            Ok(consumer) => consume(consumer, &mut inbox, &stop).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "intake pauses");
        }
        if stop.is_cancelled() {
            return;
        }
        pause(&dispatch, &stop).await;
    }
}

/// Waits until the bus is up (again) or a little while.
async fn pause(dispatch: &Dispatch, stop: &CancellationToken) {
    let mut health = dispatch.bus().health();
    health.mark_unchanged();
    tokio::select! {
        () = stop.cancelled() => {}
        _ = health.changed() => {}
        () = tokio::time::sleep(Duration::from_millis(INTAKE_PAUSE_MILLISECONDS)) => {}
    }
}

fn gone(error: BusError) -> Error {
    Error::Unavailable { message: error.to_string(), retry_after: 1 }
}

async fn subscribe<I: Inbox>(dispatch: &Dispatch, _: &I) -> Result<Box<dyn Consumer>> {
    dispatch.store().ping().await?;
    let bus = dispatch.bus().clone();
    bus.declare(&Queue::Refused).await.map_err(gone)?;
    bus.declare(&I::QUEUE).await.map_err(gone)?;
    bus.consume(&I::QUEUE, Mode::SingleActive, I::PREFETCH).await.map_err(gone)
}

/// Takes batch after batch. A stop waits for the one in hand: a transaction that is dropped in its `BEGIN` would leave its
/// connection inside it.
async fn consume(
    mut consumer: Box<dyn Consumer>,
    inbox: &mut impl Inbox,
    stop: &CancellationToken,
) -> Result<()> {
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            first = consumer.next() => first.map_err(gone)?,
        };
        let last_tag = inbox.take_batch(&mut *consumer, first).await?;
        consumer.ack_through(last_tag).await.map_err(gone)?;
        inbox.acknowledged().await;
    }
}

/// What an agent signs for the controller.
pub(super) trait FromAgent: DeserializeOwned {
    /// Its type.
    const KIND: PayloadType;
    /// What people call it.
    const WHAT: &'static str;
    /// Who says that it is theirs.
    fn issuer(&self) -> &str;
}

impl FromAgent for Report {
    const KIND: PayloadType = PayloadType::Report;
    const WHAT: &'static str = "report";
    fn issuer(&self) -> &str {
        &self.iss
    }
}

impl FromAgent for Heartbeat {
    const KIND: PayloadType = PayloadType::Heartbeat;
    const WHAT: &'static str = "heartbeat";
    fn issuer(&self) -> &str {
        &self.iss
    }
}

/// Verifies a message: who says what. A refusal is counted; the outer error is the database's.
pub(super) async fn verify<P: FromAgent>(
    dispatch: &Dispatch,
    taken: &Taken,
) -> Result<std::result::Result<(AgentId, P), Refusal>> {
    let known = match taken.envelope.keyid.parse() {
        Ok(id) => dispatch.hosts().known_key(&id).await?,
        Err(_) => None,
    };
    let check = || {
        let authentic = taken.envelope.verify(&[P::KIND], |_| known.clone())?;
        let verified = authentic.open::<P>(&Audience::Controller)?;
        let agent = verified.key().agent_id();
        if verified.get().issuer() != agent.as_str() {
            return Err(Refusal::Audience);
        }
        Ok((agent, verified.into_inner()))
    };
    Ok(check().inspect_err(|refusal| refused::<P>(taken, *refusal)))
}

/// Counts a message that is not believed.
pub(super) fn refused<P: FromAgent>(taken: &Taken, refusal: Refusal) {
    let (what, reason) = (P::WHAT, refusal.label());
    metrics::counter!("signet_refused_total", "what" => what, "reason" => reason).increment(1);
    tracing::debug!(reason, keyid = %taken.envelope.keyid, "a {what} was refused");
}
