//! The consumer: takes messages from the agent's own queue, journals, acknowledges.
//!
//! Whatever waits in the queue is taken into one sync. A message is acknowledged only when it needs no second coming:
//! journaled, obeyed, or counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use signet_common::Envelope;
use signet_common::bus::{Bus, BusError, Consumer, Mode, Queue, Taken};
use signet_common::envelope::{Refusal, Verified};
use signet_common::fault::{self, Point};
use signet_common::ids::Jti;
use signet_common::messages::{Cancel, Event, KeyringPush, Outcome, Resume};
use signet_common::time::Micros;

use crate::agent::{Agent, Rewind, at, entry};
use crate::execute::{self, ended};
use crate::journal::{Entry, Purpose};
use crate::limits::{PREFETCH, PULSE_EVERY, RETRY_FIRST, RETRY_MAX, TAKE_MAX};
use crate::pulse::Pulse;
use crate::retry::Backoff;
use crate::verify::{self, Checked, Context, Instruction};
use crate::work::{CancelEffect, Ready, Step};

/// Consumes until the agent stops.
pub(crate) async fn run(agent: Arc<Agent>, pulse: Pulse) {
    let mut link = agent.link.subscribe();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    // Whether this try came before its time, because a hello was answered.
    let mut hurried = false;
    loop {
        pulse.beat();
        let bus = link.borrow_and_update().clone();
        let Some(bus) = bus else {
            tokio::select! {
                _ = link.changed() => {}
                () = tokio::time::sleep(PULSE_EVERY) => {}
                () = agent.stop.cancelled() => return,
            }
            continue;
        };
        let mut health = bus.health();
        health.mark_unchanged();
        let error = tokio::select! {
            ended = consume(&agent, bus.as_ref(), &pulse, &mut backoff, link.clone()) => ended,
            () = agent.stop.cancelled() => return,
        };
        let Some(error) = error else { continue };
        match &error {
            // The bus says so itself.
            BusError::Down(_) => tracing::debug!(%error, "the agent's queue can't be consumed now"),
            _ => tracing::warn!(%error, "the agent's queue can't be consumed now"),
        }
        let mut welcomed = agent.welcomed.subscribe();
        let ask = !hurried && matches!(error, BusError::NoQueue(_) | BusError::Refused(_));
        if ask {
            agent.hello.notify_one();
        }
        hurried = false;
        // Paused in short steps, so that the watchdog sees the loop turn.
        let pause = tokio::time::sleep(backoff.next());
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = link.changed() => break,
                _ = health.changed() => break,
                // Once: what a hello does not help against is paced by the pauses alone.
                Ok(()) = welcomed.changed(), if ask => {
                    hurried = true;
                    break;
                }
                () = tokio::time::sleep(PULSE_EVERY) => pulse.beat(),
                () = agent.stop.cancelled() => return,
            }
        }
    }
}

/// Consumes until something breaks; `None` when another bus is to be used.
async fn consume(
    agent: &Arc<Agent>,
    bus: &dyn Bus,
    pulse: &Pulse,
    backoff: &mut Backoff,
    mut link: tokio::sync::watch::Receiver<crate::agent::Link>,
) -> Option<BusError> {
    let queue = Queue::Agent(agent.id.clone());
    let consumer = bus.consume(&queue, Mode::Exclusive, PREFETCH);
    let mut consumer = match pulse.beat_until(consumer).await {
        Ok(consumer) => consumer,
        Err(error) => return Some(error),
    };
    tracing::info!("consuming the agent's queue");
    backoff.reset();
    loop {
        let first = tokio::select! {
            taken = consumer.next() => match taken {
                Ok(taken) => taken,
                Err(error) => return Some(error),
            },
            changed = link.changed() => {
                // A closed channel means that the agent is gone; then the caller is too.
                tracing::debug!(?changed, "the way to the broker changed");
                return None;
            }
            () = tokio::time::sleep(PULSE_EVERY) => {
                pulse.beat();
                continue;
            }
        };
        pulse.beat();
        if let Err(error) = take_all(agent, consumer.as_mut(), first, pulse).await {
            return Some(error);
        }
    }
}

async fn take_all(
    agent: &Arc<Agent>,
    consumer: &mut dyn Consumer,
    first: Taken,
    pulse: &Pulse,
) -> Result<(), BusError> {
    let mut tag = first.tag;
    let mut batch = vec![first.envelope];
    while batch.len() < TAKE_MAX
        && let Some(taken) = consumer.try_next()
    {
        tag = taken.tag;
        batch.push(taken.envelope);
    }
    // A task, because nothing may be dropped between the journal and the state in memory.
    let agent = Arc::clone(agent);
    let taken = tokio::spawn(async move { take(&agent, batch).await });
    if let Err(error) = taken.await {
        tracing::error!(%error, "taking messages failed");
    }
    fault::hit(Point::AgentBeforeAck);
    // A broker with an alarm reads nothing from who publishes, for as long as the alarm lasts.
    pulse.beat_until(consumer.ack_through(tag)).await?;
    fault::hit(Point::AgentAfterAck);
    Ok(())
}

/// What is to be written with the next sync.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    accepted: Vec<(Ready, bool)>,
    rejected: Vec<Jti>,
}

/// Verifies messages and does what they say. Returns when they may be acknowledged.
pub(crate) async fn take(agent: &Arc<Agent>, envelopes: Vec<Envelope>) {
    let guard = agent.taking.lock().await;
    let mut batch = Batch::default();
    for envelope in envelopes {
        if let Some(control) = sort(agent, envelope, &mut batch) {
            // What came before it stands first: a cancel may be for that.
            write(agent, std::mem::take(&mut batch)).await;
            obey(agent, control).await;
        }
    }
    write(agent, batch).await;
    drop(guard);
}

/// Verifies one message and puts what it makes into the batch, or returns what is to be obeyed at once.
fn sort(agent: &Agent, envelope: Envelope, batch: &mut Batch) -> Option<Instruction> {
    let trouble = agent.busy();
    let head = agent.journal.head().borrow().clone();
    let mut desk = agent.desk();
    let desk = &mut *desk;
    let Some(keyring) = &desk.keyring else {
        desk.refused.count(Refusal::Key);
        return None;
    };
    let context = Context {
        me: &agent.id,
        keyring,
        not_before: head.not_before.unwrap_or(i64::MAX),
        first_log: agent.first_log.load(Ordering::Relaxed),
        clock: Micros::now().seconds(),
        policy: &agent.policy,
        own_user: &agent.own_user,
        log_began: head.began(),
    };
    let checked = verify::check(&envelope, &context, &mut desk.time, |what| desk.work.has_seen(what));
    match checked {
        Checked::Refuse(refusal) => {
            tracing::debug!(%refusal, "a message was not believed");
            desk.refused.count(refusal);
            None
        }
        Checked::Reject { jti, exp, reason, detail } => {
            tracing::warn!(%jti, ?reason, detail, "a message was rejected");
            desk.work.remember(&jti, exp);
            let event = execute::rejected(&jti, reason, detail);
            batch.entries.push(Entry { event, exp, message: None });
            batch.rejected.push(jti);
            None
        }
        Checked::Late { jti, exp } => {
            tracing::info!(%jti, "a command came after its time");
            desk.refused.count(Refusal::Expired);
            desk.work.remember(&jti, exp);
            batch.entries.push(Entry {
                event: execute::ended(&jti, Outcome::Expired, "it came after its time"),
                exp,
                message: None,
            });
            batch.rejected.push(jti);
            None
        }
        Checked::Do(Instruction::Order(order)) => {
            if trouble.or_else(|| desk.work.busy(envelope.body.len())).is_some() {
                desk.refused.count(Refusal::Busy);
                return None;
            }
            let order: Ready = Arc::new(order);
            let may_start = desk.gate == crate::agent::Gate::Open;
            let start = desk.work.accept(Arc::clone(&order), envelope.body.len(), may_start);
            let (jti, exp) = (order.jti().clone(), order.exp());
            let event = Event::Accepted { jti: jti.clone(), at: at() };
            batch.entries.push(Entry { event, exp, message: Some(envelope) });
            if start {
                batch.entries.push(entry(Event::Started { jti, at: at() }));
            }
            batch.accepted.push((order, start));
            None
        }
        Checked::Do(control) => Some(control),
    }
}

/// Writes a batch; what can't be written is as if it had never come, and comes again.
async fn write(agent: &Arc<Agent>, batch: Batch) {
    if batch.entries.is_empty() {
        return;
    }
    let written = agent.append(batch.entries, Purpose::Work).await;
    if let Err(error) = &written {
        tracing::warn!(%error, "messages could not be accepted");
    }
    let mut desk = agent.desk();
    if written.is_err() {
        for jti in &batch.rejected {
            desk.work.forget_one(jti);
            desk.refused.count(Refusal::Busy);
        }
    }
    let mut starting = Vec::new();
    for (order, start) in batch.accepted {
        let step = if written.is_ok() { Step::Accepted } else { Step::Unwritten };
        if let Err(illegal) = desk.work.step(order.jti(), step) {
            tracing::error!(%illegal, "a message is out of step");
        } else if written.is_err() {
            desk.refused.count(Refusal::Busy);
        } else if start {
            starting.push(order);
        }
    }
    drop(desk);
    for order in starting {
        execute::spawn(agent, order);
    }
    // Slots may have come free while this was written.
    execute::pump(agent);
    if written.is_err() {
        agent.beat.notify_one();
    }
}

async fn obey(agent: &Arc<Agent>, control: Instruction) {
    let jti = control.jti().clone();
    match control {
        Instruction::Cancel(message) => cancel(agent, &message).await,
        Instruction::Resume(message) => resume(agent, &message).await,
        Instruction::Keyring(message) => keyring(agent, &message),
        Instruction::Order(_) => return,
    }
    agent.desk().work.obeyed(&jti);
}

/// Returns when what it did is in the journal: a cancel that is acknowledged does not come again.
async fn cancel(agent: &Arc<Agent>, message: &Verified<Cancel>) {
    if let Some(end) = withdraw(agent, message.get()) {
        agent.write_end(vec![end]).await;
    }
}

/// Ends what runs, or gives the end of what never will.
fn withdraw(agent: &Agent, message: &Cancel) -> Option<Entry> {
    let Cancel { cancels, cancels_exp, .. } = message;
    let mut desk = agent.desk();
    let effect = desk.work.cancel(cancels);
    tracing::info!(jti = %cancels, ?effect, "cancel");
    let (exp, why) = match effect {
        CancelEffect::Nothing => return None,
        CancelEffect::Ending => {
            // Without an entry it is not spawned yet, and will not be.
            if let Some(end) = desk.ends.get(cancels) {
                end.send_replace(Some(crate::run::End::Cancel));
            }
            return None;
        }
        CancelEffect::Unknown => {
            desk.work.remember(cancels, *cancels_exp);
            (*cancels_exp, "cancelled before it came")
        }
        CancelEffect::Withdrawn => (0, "cancelled before it started"),
    };
    Some(Entry { event: ended(cancels, Outcome::Cancelled, why), exp, message: None })
}

/// Reports again from where the controller is, unless that doesn't fit this log: then a hello sorts it out.
async fn resume(agent: &Arc<Agent>, message: &Verified<Resume>) {
    let resume = message.get();
    let head = agent.journal.head().borrow().clone();
    let fits = resume.log_id.as_ref() == Some(&head.log_id)
        && resume.seq <= head.seq
        && match agent.journal.reader().chain_at(resume.seq, &head) {
            Ok(Some(chain)) => resume.chain.is_none_or(|theirs| theirs == chain),
            // Gone from here: a gap will say so.
            Ok(None) => true,
            Err(error) => {
                tracing::error!(%error, "the journal can't be read");
                false
            }
        };
    tracing::info!(log = ?resume.log_id, seq = resume.seq, fits, "resume");
    if fits {
        agent.journal.confirm(resume.seq, agent.verified()).await;
        agent.rewind.send_replace(Some(Rewind { log_id: head.log_id, seq: resume.seq }));
    } else {
        agent.hello.notify_one();
    }
}

fn keyring(agent: &Arc<Agent>, message: &Verified<KeyringPush>) {
    let signed = &message.get().keyring;
    let mut desk = agent.desk();
    let Some(held) = &desk.keyring else { return };
    match held.advance(signed) {
        Ok(next) => {
            if let Err(error) = agent.data.keep_keyring(signed) {
                tracing::error!(%error, "the keyring can't be kept; it is taken when it comes again");
                return;
            }
            tracing::info!(version = next.version(), "a new keyring");
            desk.keyring = Some(next);
            agent.beat.notify_one();
        }
        Err(error) => {
            let newer = signet_common::keyring::version_of(signed).is_some_and(|v| v > held.version());
            tracing::warn!(%error, newer, "a keyring that does not follow ours");
            if newer {
                agent.hello.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::at_rest;
    use serde_json::json;
    use signet_common::PayloadType;
    use signet_common::keyring::Keyring;
    use signet_common::keys::SigningKey;

    #[tokio::test]
    async fn a_cancel_is_durable_before_it_is_acknowledged() {
        let root = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        let agent = at_rest(root.path(), Keyring::first(&key, 1).unwrap().0);
        let now = Micros::now().seconds();
        agent.journal.begin_at(now).await.unwrap();
        let cancel = json!({
            "iss": "controller", "aud": [agent.id], "iat": now, "exp": now + 60, "jti": Jti::generate(),
            "cancels": Jti::generate(), "cancels_exp": now + 600,
        });
        take(&agent, vec![Envelope::sign(&key, PayloadType::Cancel, &cancel).unwrap()]).await;
        assert_eq!(agent.journal.head().borrow().seq, 1);
    }
}
