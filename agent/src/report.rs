//! The reporter: tells the controller what is synced, in order, one report in flight at a time.
//!
//! What the broker has confirmed is not yet what the controller has: its cursor is known only from a hello's answer or
//! a `resume`, and that alone decides what may be removed. The broker may lose everything; then a `resume` rewinds.

use std::io;
use std::sync::Arc;

use serde_json::value::RawValue;
use signet_common::bus::{Address, Bus, Published};
use signet_common::fault::{self, Point};
use signet_common::ids::Jti;
use signet_common::limits::{REPORT_EVENTS_BYTES_MAX, REPORT_EVENTS_MAX};
use signet_common::messages::Report;
use signet_common::time::Micros;
use signet_common::{Envelope, PayloadType};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::{Agent, Gate, Link, Rewind};
use crate::journal::{Head, Line, Reader};
use crate::limits::{PULSE_EVERY, REPORT_WAIT, RETRY_FIRST, RETRY_MAX};
use crate::pulse::Pulse;
use crate::retry::Backoff;

struct Reporter {
    agent: Arc<Agent>,
    reader: Reader,
    head: watch::Receiver<Head>,
    link: watch::Receiver<Link>,
    rewind: watch::Receiver<Option<Rewind>>,
    /// The last event that the broker has.
    sent: u64,
}

/// Reports until the agent stops.
pub(crate) async fn run(agent: Arc<Agent>, pulse: Pulse) {
    let mut reporter = Reporter {
        reader: agent.journal.reader(),
        head: agent.journal.head(),
        link: agent.link.subscribe(),
        rewind: agent.rewind.subscribe(),
        sent: 0,
        agent: Arc::clone(&agent),
    };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        pulse.beat();
        let turned = tokio::select! {
            turned = reporter.turn() => turned,
            () = agent.stop.cancelled() => return,
        };
        let Err(pause) = turned.map(|()| backoff.reset()).map_err(|NotTaken| backoff.next()) else {
            continue;
        };
        let until = Instant::now() + pause;
        while Instant::now() < until {
            pulse.beat();
            tokio::select! {
                () = tokio::time::sleep_until(until.min(Instant::now() + PULSE_EVERY)) => {}
                _ = reporter.link.changed() => break,
                () = agent.stop.cancelled() => return,
            }
        }
    }
}

/// The broker did not take a report, or it could not be made: try again after a pause.
struct NotTaken;

impl Reporter {
    /// Sends one report when there is something to say, or waits a while.
    async fn turn(&mut self) -> Result<(), NotTaken> {
        self.follow();
        let head = self.head.borrow_and_update().clone();
        let link = self.link.borrow_and_update().clone();
        let aside = self.agent.desk().gate == Gate::SetAside;
        let Some(bus) = link.filter(|_| !aside && head.seq > self.sent) else {
            self.wait(PULSE_EVERY).await;
            return Ok(());
        };
        if head.urgent <= self.sent {
            self.wait_for_company().await;
        }
        let head = self.head.borrow_and_update().clone();
        let lines = self.read(&head).map_err(|error| {
            tracing::error!(%error, sent = self.sent, "the journal can't be read for a report");
            NotTaken
        })?;
        let Some(last) = lines.last().map(|line| line.seq) else { return Ok(()) };
        let report = self.sign(&head, lines)?;
        fault::hit(Point::AgentBeforeReport);
        match bus.publish(&Address::Reports, report).await {
            Ok(Published::Confirmed) => {
                fault::hit(Point::AgentAfterReport);
                self.sent = last;
                self.agent.sent.send_replace(last);
                Ok(())
            }
            Ok(other) => {
                tracing::warn!(?other, "the broker did not take a report");
                Err(NotTaken)
            }
            Err(error) => {
                tracing::debug!(%error, "a report could not be sent");
                self.wait_for_bus(bus.as_ref()).await;
                Err(NotTaken)
            }
        }
    }

    /// Goes where the controller says that it is.
    fn follow(&mut self) {
        let log_id = self.head.borrow().log_id.clone();
        if *self.reader.log_id() != log_id {
            self.reader = self.agent.journal.reader();
            self.sent = 0;
            self.agent.sent.send_replace(0);
        }
        if !self.rewind.has_changed().unwrap_or(false) {
            return;
        }
        if let Some(rewind) = self.rewind.borrow_and_update().clone()
            && rewind.log_id == log_id
        {
            tracing::debug!(from = self.sent, to = rewind.seq, "reporting goes on from there");
            self.sent = rewind.seq;
            self.agent.sent.send_replace(rewind.seq);
        }
    }

    fn read(&mut self, head: &Head) -> io::Result<Vec<Line>> {
        self.reader.after(self.sent, head, REPORT_EVENTS_MAX, REPORT_EVENTS_BYTES_MAX)
    }

    fn sign(&self, head: &Head, lines: Vec<Line>) -> Result<Envelope, NotTaken> {
        let events: Result<Vec<_>, _> =
            lines.into_iter().map(|line| RawValue::from_string(line.text)).collect();
        let made = events.map_err(|e| e.to_string()).and_then(|events| {
            let report = Report {
                iss: self.agent.id.to_string(),
                aud: vec!["controller".to_owned()],
                iat: Micros::now().seconds(),
                jti: Jti::generate(),
                start_id: self.agent.start_id.clone(),
                // After the events were read, as a heartbeat takes its own before it looks at the head.
                n: self.agent.number(),
                log_id: head.log_id.clone(),
                events,
            };
            Envelope::sign(&self.agent.key, PayloadType::Report, &report).map_err(|e| e.to_string())
        });
        made.map_err(|error| {
            tracing::error!(error, "a report can't be made");
            NotTaken
        })
    }

    /// Waits for anything new.
    async fn wait(&mut self, longest: std::time::Duration) {
        tokio::select! {
            _ = self.head.changed() => {}
            _ = self.link.changed() => {}
            _ = self.rewind.changed() => self.rewind.mark_changed(),
            () = tokio::time::sleep(longest) => {}
        }
    }

    /// Waits until something should be told at once, or long enough.
    async fn wait_for_company(&mut self) {
        let until = tokio::time::sleep(REPORT_WAIT);
        tokio::pin!(until);
        loop {
            tokio::select! {
                changed = self.head.changed() => {
                    if changed.is_err() || self.head.borrow_and_update().urgent > self.sent {
                        return;
                    }
                }
                () = &mut until => return,
            }
        }
    }

    /// Waits until a broken connection is back, a while at most.
    async fn wait_for_bus(&self, bus: &dyn Bus) {
        let mut health = bus.health();
        if *health.borrow_and_update() != signet_common::bus::Health::Up {
            tokio::select! {
                _ = health.changed() => {}
                () = tokio::time::sleep(PULSE_EVERY) => {}
            }
        }
    }
}
