//! The standing with the controller: when to say hello, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use signet_common::bus::Bus;
use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Role};
use signet_common::ids::Jti;
use signet_common::messages::{BusyReason, Rejection, Standing, Welcome};
use signet_common::time::Micros;
use tokio::time::Instant;

use crate::agent::{Agent, Gate, Rewind};
use crate::execute::{self, entries, rejected};
use crate::hello::{self, HelloError, Trust, Welcomed};
use crate::limits::{HELLO_EVERY, HELLO_GAP, PENDING_FIRST, RETRY_FIRST, RETRY_MAX, UNCONFIRMED_BYTES_ASK};
use crate::retry::{Backoff, jittered};
use crate::work::Step;

/// Where the bus comes from.
#[derive(Clone)]
pub enum BusSource {
    /// From the controller's answer to a hello: AMQP.
    FromWelcome,
    /// It is there already: the in-process bus of `signet up`.
    Given(Arc<dyn Bus>),
}

/// What the agent does next about the controller.
enum Next {
    /// A hello after this long, or when asked for.
    After(Duration),
    /// A hello now: a new log has begun.
    Now,
}

struct Session {
    agent: Arc<Agent>,
    trust: Arc<Trust>,
    source: BusSource,
    amqp: Option<Arc<AmqpBus>>,
    /// Whether this start has had an answer.
    answered: bool,
    pending: Backoff,
}

/// Says hello at the start and whenever there is a reason, until the agent stops.
pub(crate) async fn run(agent: Arc<Agent>, trust: Trust, source: BusSource) {
    let mut session = Session {
        agent: Arc::clone(&agent),
        trust: Arc::new(trust),
        source,
        amqp: None,
        answered: false,
        pending: Backoff::new(PENDING_FIRST, RETRY_MAX),
    };
    let stop = agent.stop.clone();
    tokio::select! {
        () = session.turn() => {}
        () = stop.cancelled() => {}
    }
}

impl Session {
    async fn turn(&mut self) {
        let mut failed = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let said = Instant::now();
            let next = match self.say().await {
                Ok(welcomed) => {
                    failed.reset();
                    self.obey(welcomed).await
                }
                Err(error) => {
                    let pause = failed.next();
                    match error {
                        HelloError::Http(error) => tracing::warn!(%error, ?pause, "hello"),
                        error => tracing::error!(%error, ?pause, "hello"),
                    }
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            if let Next::After(pause) = next {
                self.wait(pause, said).await;
            }
        }
    }

    async fn say(&self) -> Result<Welcomed, HelloError> {
        let draft = hello::draft(&self.agent, self.answered)?;
        let trust = Arc::clone(&self.trust);
        let said = tokio::task::spawn_blocking(move || draft.say(&trust)).await;
        said.map_err(|e| HelloError::Own(e.to_string()))?
    }

    /// Waits for the next hello: its time, a reason, or a journal that grows without being confirmed.
    async fn wait(&self, pause: Duration, said: Instant) {
        let mut head = self.agent.journal.head();
        // A full journal waits for nothing but the controller's word on what it has.
        let full = head.borrow().trouble == Some(BusyReason::JournalFull);
        let pause = if full { pause.min(jittered(RETRY_MAX)) } else { pause };
        let grown = async {
            let from = head.borrow_and_update().unconfirmed;
            // An error means that the journal is closed; then the agent stops anyway.
            if head.wait_for(|h| h.unconfirmed >= from + UNCONFIRMED_BYTES_ASK).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.agent.hello.notified() => tokio::time::sleep_until(said + jittered(HELLO_GAP)).await,
            () = grown => {}
        }
    }

    async fn obey(&mut self, welcomed: Welcomed) -> Next {
        let Welcomed { welcome, keyring, signed, broker } = welcomed;
        let agent = Arc::clone(&self.agent);
        if let Some(signed) = signed
            && let Err(error) = agent.data.keep_keyring(&signed)
        {
            tracing::error!(%error, "the keyring can't be kept");
        }
        {
            let mut desk = agent.desk();
            desk.time.seen(welcome.iat);
            desk.keyring = Some(keyring);
        }
        if welcome.new_log {
            return self.begin_new_log().await;
        }
        if let Err(error) = agent.journal.begin_at(welcome.iat).await {
            tracing::error!(%error, "the journal is closed");
            return Next::After(HELLO_GAP);
        }
        if welcome.standing == Standing::Accepted {
            self.confirm(&welcome).await;
        }
        self.stand(&welcome, broker)
    }

    /// Opens or closes the way to the broker and the gate for commands.
    fn stand(&mut self, welcome: &Welcome, broker: Option<String>) -> Next {
        let agent = Arc::clone(&self.agent);
        let reason = welcome.reason.as_deref().unwrap_or("no reason given");
        match welcome.standing {
            Standing::Pending => {
                tracing::warn!(
                    reason,
                    agent = %agent.id,
                    "not accepted yet: an admin has to compare fingerprints"
                );
                agent.link.send_if_modified(|link| link.take().is_some());
                return Next::After(self.pending.next());
            }
            Standing::SetAside => tracing::error!(reason, "set aside: an admin has to accept this host"),
            Standing::Accepted => tracing::info!(cursor = welcome.cursor, "accepted by the controller"),
        }
        self.pending.reset();
        if let Err(error) = self.connect(broker) {
            tracing::error!(error, "no way to the broker");
        }
        self.answered = true;
        {
            let mut desk = agent.desk();
            if desk.gate != Gate::Stopping {
                let accepted = welcome.standing == Standing::Accepted;
                desk.gate = if accepted { Gate::Open } else { Gate::SetAside };
            }
        }
        execute::pump(&agent);
        agent.beat.notify_one();
        Next::After(jittered(HELLO_EVERY))
    }

    fn connect(&mut self, broker: Option<String>) -> Result<(), String> {
        let bus: Arc<dyn Bus> = match (&self.source, broker) {
            (BusSource::Given(bus), _) => Arc::clone(bus),
            (BusSource::FromWelcome, None) => {
                return Err("the controller names no broker; its bus reaches only its own process".into());
            }
            (BusSource::FromWelcome, Some(url)) => match &self.amqp {
                Some(amqp) => {
                    amqp.reconnect_with(&url).map_err(|e| e.to_string())?;
                    Arc::clone(amqp) as Arc<dyn Bus>
                }
                None => {
                    let name = format!("signet-agent {}", self.agent.hostname);
                    let amqp = AmqpBus::start(AmqpOptions::new(url, name, Role::Agent));
                    let amqp = Arc::new(amqp.map_err(|e| e.to_string())?);
                    self.amqp = Some(Arc::clone(&amqp));
                    amqp
                }
            },
        };
        // Unchanged, nobody need make a consumer again.
        self.agent.link.send_if_modified(|link| {
            let same = link.as_ref().is_some_and(|old| Arc::ptr_eq(old, &bus));
            *link = Some(bus);
            !same
        });
        Ok(())
    }

    /// Notes what the controller has. Later in a start that moves nothing back: a report may be under way.
    async fn confirm(&self, welcome: &Welcome) {
        let agent = &self.agent;
        let head = agent.journal.head().borrow().clone();
        let ours = match agent.journal.reader().chain_at(welcome.cursor, &head) {
            Ok(ours) => ours,
            Err(error) => {
                tracing::error!(%error, "the journal can't be read");
                return;
            }
        };
        let fits = welcome.cursor <= head.seq
            && (welcome.chain.is_none() || ours.is_none() || ours == welcome.chain);
        if fits {
            agent.journal.confirm(welcome.cursor, Micros::from_seconds(agent.time())).await;
        } else {
            tracing::error!(
                cursor = welcome.cursor,
                head = head.seq,
                "this log is not the one that the controller knows"
            );
        }
        if !self.answered || *agent.sent.borrow() < welcome.cursor {
            agent.rewind.send_replace(Some(Rewind { log_id: head.log_id, seq: welcome.cursor }));
        }
    }

    /// Sets the log aside. What waits will never run: the controller has ended it.
    async fn begin_new_log(&mut self) -> Next {
        let agent = &self.agent;
        tracing::warn!("the controller wants a new log");
        agent.link.send_replace(None);
        let taking = agent.taking.lock().await;
        if let Err(error) = agent.journal.new_log(agent.boot_id.clone()).await {
            tracing::error!(%error, "no new log can begin");
            return Next::After(HELLO_GAP);
        }
        let waiting: Vec<Jti> = {
            let mut desk = agent.desk();
            let all = desk.work.waiting_where(|_| true);
            let all: Vec<Jti> = all.into_iter().map(|c| c.get().jti.clone()).collect();
            for jti in &all {
                if let Err(illegal) = desk.work.step(jti, Step::Ended) {
                    tracing::error!(%illegal, "a message is out of step");
                }
            }
            all
        };
        let why = "it had not started when a new log began";
        let ends = waiting.iter().map(|jti| rejected(jti, Rejection::NewLog, why.to_owned())).collect();
        agent.append_end(entries(ends)).await;
        drop(taking);
        self.answered = false;
        Next::Now
    }
}
