//! The standing with the controller: when to say hello, and what its answer means.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use signet_common::bus::Bus;
use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Role};
use signet_common::ids::LogId;
use signet_common::messages::{BusyReason, Standing, Welcome};
use signet_common::time::Micros;
use signet_common::tls::TlsFiles;
use tokio::time::Instant;

use crate::agent::{Agent, Gate, Rewind};
use crate::execute;
use crate::hello::{self, HelloError, Trust, Welcomed};
use crate::journal::Head;
use crate::limits::{HELLO_EVERY, HELLO_GAP, PENDING_FIRST, RETRY_FIRST, RETRY_MAX, UNCONFIRMED_BYTES_ASK};
use crate::pulse;
use crate::retry::{Backoff, jittered};
use crate::work::Step;

/// Where the bus comes from.
#[derive(Clone)]
pub enum BusSource {
    /// From the controller's answer to a hello: AMQP, with these certificates if over TLS.
    FromWelcome(TlsFiles),
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
    /// The log that this start began at the controller's wish.
    begun: Option<LogId>,
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
        begun: None,
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
                    pulse::status(&error.to_string());
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
        let mut draft = hello::draft(&self.agent, self.answered)?;
        let trust = Arc::clone(&self.trust);
        let said = tokio::task::spawn_blocking(move || draft.say(&trust)).await;
        said.map_err(|e| HelloError::Own(e.to_string()))?
    }

    /// Waits for the next hello: its time, a reason, or a journal that grows without being confirmed.
    async fn wait(&self, pause: Duration, said: Instant) {
        let mut head = self.agent.journal.head();
        // A full journal waits for nothing but the controller's word on what it has.
        let before = head.borrow_and_update().clone();
        let pause = if is_full(&before) { pause.min(jittered(RETRY_MAX)) } else { pause };
        let grown = async {
            // An error means that the journal is closed; then the agent stops anyway.
            if head.wait_for(|now| is_worth_asking(&before, now)).await.is_err() {
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
        {
            let mut desk = agent.desk();
            desk.time.seen(welcome.iat, Micros::now().seconds());
            desk.time.told(welcome.iat);
            // One that was pushed while this hello was under way may be newer.
            if desk.keyring.as_ref().is_none_or(|held| held.version() < keyring.version()) {
                if let Some(signed) = signed
                    && let Err(error) = agent.data.keep_keyring(&signed)
                {
                    tracing::error!(%error, "the keyring can't be kept");
                }
                desk.keyring = Some(keyring);
            }
        }
        if welcome.new_log {
            return self.begin_new_log().await;
        }
        if let Err(error) = agent.journal.begin_at(welcome.iat).await {
            tracing::error!(%error, "the log can't begin");
            return Next::After(jittered(HELLO_GAP));
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
                pulse::status(reason);
                agent.link.send_if_modified(|link| link.take().is_some());
                return Next::After(self.pending.next());
            }
            Standing::SetAside => {
                pulse::status("set aside: an admin has to accept this host");
                tracing::error!(reason, "set aside: an admin has to accept this host");
            }
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
        agent.welcomed.send_replace(());
        agent.beat.notify_one();
        Next::After(jittered(HELLO_EVERY))
    }

    fn connect(&mut self, broker: Option<String>) -> Result<(), String> {
        let bus: Arc<dyn Bus> = match (&self.source, broker) {
            (BusSource::Given(bus), _) => Arc::clone(bus),
            (BusSource::FromWelcome(_), None) => {
                return Err("the controller names no broker; its bus reaches only its own process".into());
            }
            (BusSource::FromWelcome(tls), Some(url)) => match &self.amqp {
                Some(amqp) => {
                    amqp.reconnect_with(&url).map_err(|e| e.to_string())?;
                    Arc::clone(amqp) as Arc<dyn Bus>
                }
                None => {
                    let name = format!("signet-agent {}", self.agent.hostname);
                    let options = AmqpOptions::new(url, name, Role::Agent);
                    let amqp = AmqpBus::start(AmqpOptions { tls: tls.clone(), ..options });
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
            agent.journal.confirm(welcome.cursor, agent.verified()).await;
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

    /// Sets the log aside. What waits will never run: the controller has ended it. Nothing is said of it here, because a
    /// journal that was put back doesn't know what had started.
    async fn begin_new_log(&mut self) -> Next {
        let agent = &self.agent;
        agent.link.send_replace(None);
        let head = agent.journal.head().borrow().clone();
        if head.seq == 0 && head.not_before.is_none() && self.begun == Some(head.log_id) {
            // Another would be no newer, and each one pushes an older one out.
            tracing::error!("the controller wants a new log, and this one is");
            return Next::After(jittered(HELLO_GAP));
        }
        tracing::warn!("the controller wants a new log");
        let taking = agent.taking.lock().await;
        if let Err(error) = agent.journal.new_log(agent.boot_id.clone()).await {
            tracing::error!(%error, "no new log can begin");
            return Next::After(jittered(HELLO_GAP));
        }
        agent.first_log.store(false, Ordering::Relaxed);
        self.begun = Some(agent.journal.head().borrow().log_id.clone());
        {
            let mut desk = agent.desk();
            let waiting = desk.work.waiting_where(|_| true);
            for jti in waiting.iter().map(|order| order.jti()) {
                if let Err(illegal) = desk.work.step(jti, Step::Ended) {
                    tracing::error!(%illegal, "a message is out of step");
                }
            }
        }
        drop(taking);
        self.answered = false;
        Next::Now
    }
}

fn is_full(head: &Head) -> bool {
    head.trouble == Some(BusyReason::JournalFull)
}

/// Whether the journal has grown so much that the controller is asked what it has.
fn is_worth_asking(before: &Head, now: &Head) -> bool {
    now.unconfirmed >= before.unconfirmed + UNCONFIRMED_BYTES_ASK || is_full(now) && !is_full(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::at_rest;
    use crate::http::Controller;
    use signet_common::bus::memory::MemoryBus;
    use signet_common::chain::ChainHash;
    use signet_common::ids::Jti;
    use signet_common::keyring::Keyring;
    use signet_common::keys::SigningKey;

    fn session(root: &std::path::Path, keyring: &Keyring) -> Session {
        let controller = Controller::parse("http://127.0.0.1:1").unwrap();
        Session {
            agent: at_rest(root, keyring.clone()),
            trust: Arc::new(Trust { controller, join: None, fingerprint: None }),
            source: BusSource::Given(Arc::new(MemoryBus::default())),
            amqp: None,
            answered: true,
            begun: None,
            pending: Backoff::new(PENDING_FIRST, RETRY_MAX),
        }
    }

    fn welcomed(keyring: &Keyring, new_log: bool) -> Welcomed {
        let welcome = Welcome {
            iss: "controller".into(),
            aud: vec![],
            iat: Micros::now().seconds(),
            jti: Jti::generate(),
            nonce: String::new(),
            standing: Standing::Accepted,
            reason: None,
            broker: None,
            cursor: 0,
            chain: None,
            new_log,
            keyring: keyring.version(),
        };
        Welcomed { welcome, keyring: keyring.clone(), signed: None, broker: None }
    }

    #[tokio::test]
    async fn an_answer_does_not_push_a_newer_keyring_out() {
        let root = tempfile::tempdir().unwrap();
        let keys: Vec<SigningKey> = (0..2).map(|_| SigningKey::generate().unwrap()).collect();
        let (one, _) = Keyring::first(&keys[0], 1).unwrap();
        let (two, _) = one.next(&keys[0], &keys[1], 2, false).unwrap();
        let mut session = session(root.path(), &two);
        session.obey(welcomed(&one, false)).await;
        assert_eq!(session.agent.desk().keyring.as_ref(), Some(&two));
    }

    #[tokio::test]
    async fn a_controller_that_is_never_content_with_a_log_pushes_no_log_out() {
        let root = tempfile::tempdir().unwrap();
        let (keyring, _) = Keyring::first(&SigningKey::generate().unwrap(), 1).unwrap();
        let mut session = session(root.path(), &keyring);
        let old = || crate::journal::old_logs(root.path()).unwrap();
        assert!(matches!(session.obey(welcomed(&keyring, true)).await, Next::Now));
        let first = old();
        assert_eq!(first.len(), 1);
        for _ in 0..3 {
            assert!(matches!(session.obey(welcomed(&keyring, true)).await, Next::After(_)));
            assert_eq!(old(), first);
        }
    }

    #[test]
    fn a_journal_that_becomes_full_waits_for_no_hour() {
        let log_id = LogId::generate();
        let head = |unconfirmed, trouble| Head {
            chain: ChainHash::genesis(&log_id),
            log_id: log_id.clone(),
            seq: 1,
            urgent: 0,
            confirmed: 0,
            not_before: None,
            unconfirmed,
            trouble,
        };
        let (idle, full) = (head(900, None), head(1_000, Some(BusyReason::JournalFull)));
        assert!(!is_worth_asking(&idle, &head(1_000, None)));
        assert!(is_worth_asking(&idle, &head(900 + UNCONFIRMED_BYTES_ASK, None)));
        assert!(is_worth_asking(&idle, &full));
        assert!(!is_worth_asking(&full, &full), "that is what the shorter pause is for");
    }
}
