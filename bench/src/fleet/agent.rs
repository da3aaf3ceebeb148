//! One simulated agent at work: consumes its queue, verifies, reports with its chain, says that it lives.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use signet_common::bus::amqp::AmqpBus;
use signet_common::bus::{Address, Bus as _, Consumer, Mode, Published, Queue, Taken};
use signet_common::chain::{ChainHash, Chained};
use signet_common::envelope::Audience;
use signet_common::limits::HEARTBEAT_SECONDS;
use signet_common::messages::{
    Command, CommandResult, Event, FEATURES, Heartbeat, Isolation, Outcome, Report, Resume, StreamSummary,
};
use signet_common::time::Micros;
use signet_common::{AgentId, Envelope, Jti, PayloadType};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::hello::Welcomed;
use crate::limits::{LOOK_EVERY, PREFETCH};

/// SHA-256 of nothing, which is what `true` writes.
const NOTHING_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An agent; its journal is a list in memory.
pub(super) struct Agent {
    id: AgentId,
    welcomed: Welcomed,
    bus: Arc<AmqpBus>,
    journal: Vec<Chained>,
    known: HashSet<Jti>,
    /// The number of the last report or heartbeat.
    n: u64,
}

impl Agent {
    pub(super) fn new(welcomed: Welcomed, bus: Arc<AmqpBus>) -> Self {
        let id = welcomed.key.public().agent_id();
        Self { id, welcomed, bus, journal: Vec::new(), known: HashSet::new(), n: 0 }
    }

    /// Works for ever. The first sign of life comes at once, the next ones at the agent's own moment of each period.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut consumer = self.consume().await;
        self.heartbeat().await?;
        let period = Duration::from_secs(HEARTBEAT_SECONDS.into());
        let place = period.mul_f64(f64::from(rank(&self.id)) / f64::from(u16::MAX));
        let mut beat = interval_at(Instant::now() + place, period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => self.heartbeat().await?,
                taken = consumer.next() => {
                    let first = taken?;
                    self.take(first, consumer.as_mut()).await?;
                }
            }
        }
    }

    /// The controller has made the queue, or is about to.
    async fn consume(&self) -> Box<dyn Consumer> {
        loop {
            match self.bus.consume(&Queue::Agent(self.id.clone()), Mode::Exclusive, PREFETCH).await {
                Ok(consumer) => return consumer,
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Takes what is there, with one report for all of it.
    async fn take(&mut self, first: Taken, consumer: &mut dyn Consumer) -> anyhow::Result<()> {
        let mut reported = self.head();
        let mut last = first.tag;
        let mut next = Some(first);
        while let Some(taken) = next {
            last = taken.tag;
            if let Some(after) = self.understand(&taken.envelope)? {
                reported = reported.min(after);
            }
            next = consumer.try_next();
        }
        consumer.ack_through(last).await?;
        if reported < self.head() {
            self.report(reported).await?;
        }
        Ok(())
    }

    /// Verifies a message and does what it says; gives the event after which is to be reported.
    fn understand(&mut self, envelope: &Envelope) -> anyhow::Result<Option<u64>> {
        let keyring = &self.welcomed.keyring;
        let authentic = envelope.verify(PayloadType::TO_AGENTS, |id| keyring.find(id))?;
        let claims = authentic.claims()?;
        authentic.audience(&claims, &Audience::Agent(self.id.clone()))?;
        match authentic.kind() {
            PayloadType::Command => {
                let command: Command = authentic.parse()?.into_inner();
                let after = self.head();
                if !self.known.insert(command.jti.clone()) {
                    return Ok(None);
                }
                self.perform(&command.jti)?;
                Ok(Some(after))
            }
            PayloadType::Resume => Ok(Some(authentic.parse::<Resume>()?.into_inner().seq)),
            _ => Ok(None),
        }
    }

    /// What the journal of a true agent says of a short command.
    fn perform(&mut self, jti: &Jti) -> anyhow::Result<()> {
        let at = Micros::now().0;
        self.write(Event::Accepted { jti: jti.clone(), at })?;
        self.write(Event::Started { jti: jti.clone(), at })?;
        self.write(Event::Result { jti: jti.clone(), at, result: Box::new(succeeded()) })
    }

    fn write(&mut self, event: Event) -> anyhow::Result<()> {
        let next = Chained::next(self.chain(), self.head() + 1, event)?;
        self.journal.push(next);
        Ok(())
    }

    fn head(&self) -> u64 {
        self.journal.last().map_or(0, |event| event.seq)
    }

    fn chain(&self) -> ChainHash {
        self.journal.last().map_or_else(|| ChainHash::genesis(&self.welcomed.log_id), |event| event.chain)
    }

    async fn report(&mut self, after: u64) -> anyhow::Result<()> {
        self.n += 1;
        let events = self.journal.iter().filter(|event| event.seq > after);
        let report = Report {
            iss: self.id.to_string(),
            aud: vec!["controller".to_owned()],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            start_id: self.welcomed.start_id.clone(),
            n: self.n,
            log_id: self.welcomed.log_id.clone(),
            events: events
                .map(|event| RawValue::from_string(event.text.clone()))
                .collect::<Result<_, _>>()?,
        };
        self.publish(&Address::Reports, Envelope::sign(&self.welcomed.key, PayloadType::Report, &report)?)
            .await
    }

    async fn heartbeat(&mut self) -> anyhow::Result<()> {
        self.n += 1;
        let heartbeat = Heartbeat {
            iss: self.id.to_string(),
            aud: vec!["controller".to_owned()],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            start_id: self.welcomed.start_id.clone(),
            n: self.n,
            log_id: self.welcomed.log_id.clone(),
            head: self.head(),
            chain: self.chain(),
            hostname: self.welcomed.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
            keyring: self.welcomed.keyring.version(),
            stopping: false,
            busy: None,
            narrowed: false,
            isolation: Isolation::ProcessGroup,
            waiting: 0,
            running: 0,
            cpu_usage: f64::from(rank(&self.id) % 1_000) / 10.0,
            memory_usage: 60.2,
            load: [0.5, 0.25, 0.0],
            disk_usage: 42.0,
            uptime: 3_600,
            boot_id: "8c8d3a1e-6f2b-4f0e-9d0c-1f2e3d4c5b6a".to_owned(),
            refused: [].into(),
            deploys: Vec::new(),
        };
        let envelope = Envelope::sign(&self.welcomed.key, PayloadType::Heartbeat, &heartbeat)?;
        self.publish(&Address::Heartbeats, envelope).await
    }

    async fn publish(&self, to: &Address, envelope: Envelope) -> anyhow::Result<()> {
        let published = self.bus.publish(to, envelope).await?;
        anyhow::ensure!(published == Published::Confirmed, "{to:?}: {published:?}");
        Ok(())
    }
}

/// 0 to 65,535, spread evenly over agents: their ids are digests.
fn rank(id: &AgentId) -> u16 {
    id.as_str().get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

fn succeeded() -> CommandResult {
    let nothing = StreamSummary { sha256: NOTHING_SHA256.to_owned(), ..StreamSummary::default() };
    CommandResult {
        outcome: Outcome::Succeeded,
        reason: None,
        exit_code: Some(0),
        signal: None,
        stdout: Vec::new(),
        stderr: Vec::new(),
        stdout_summary: nothing.clone(),
        stderr_summary: nothing,
        killed: 0,
        duration_ms: 1,
        deploy: None,
    }
}
