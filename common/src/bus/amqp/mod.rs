//! The bus over AMQP 0-9-1, with RabbitMQ 3.10 to 4.x.
//!
//! One loop keeps it connected ([`AmqpBus::start`]). On any error everything is dropped and made again, after a pause
//! that keeps a fleet from returning all at once. Nothing is published twice from here, and consumers are made again
//! by who uses them, upon [`Health`]'s change to `Up`.
//!
//! lapin writes whole messages to the log, bodies included; whoever sets the log filter should give it `lapin=off`.

mod address;
mod consumer;
mod envelope;
mod error;
mod link;
mod pool;
mod session;
mod topology;

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::address::BrokerUrl;

use self::session::Session;
use super::topology::Topology;
use super::{Address, Bus, BusError, Consumer, Health, Mode, Published, Queue};
use crate::envelope::Envelope;
use crate::limits;
use crate::tls::{Identity, TlsFiles};

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One connection with small frames, because memory on every host counts. Declares nothing.
    Agent,
    /// Two connections: an alarm of the broker stops the one that publishes, and the other goes on consuming.
    Controller,
}

/// When a lost or refused connection is tried again, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first retry comes at a random moment within this time, so that a fleet does not return all at once.
    pub spread: Duration,
    /// The pause after the second failure; it doubles with each further one, and each is taken by half to whole.
    pub pause: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            spread: Duration::from_secs(limits::RECONNECT_SPREAD_SECONDS),
            pause: Duration::from_secs(1),
            longest: Duration::from_secs(limits::RECONNECT_SECONDS_MAX),
        }
    }
}

impl Retry {
    /// For a test, and for a program that is alone with its broker.
    #[must_use]
    pub const fn quick() -> Self {
        let short = Duration::from_millis(50);
        Self { spread: short, pause: short, longest: Duration::from_millis(200) }
    }

    /// The pause after so many failures in a row; `chance` is from 0 to 1.
    fn after(&self, failures: u32, chance: f64) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return self.spread.mul_f64(chance) };
        let whole = self.pause.saturating_mul(2_u32.saturating_pow(doublings.min(16))).min(self.longest);
        whole.mul_f64(0.5 + chance / 2.0)
    }
}

/// How to reach the broker.
#[derive(Debug, Clone)]
pub struct AmqpOptions {
    /// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS.
    pub url: String,
    /// The connection's name in the broker's lists.
    pub name: String,
    /// Who connects.
    pub role: Role,
    /// Certificates for `amqps://`. Read with every connect, so that renewed ones need no restart.
    pub tls: TlsFiles,
    /// When it is tried again.
    pub retry: Retry,
    /// The queues' bounds; the same for all controllers of an installation.
    pub topology: Topology,
}

impl AmqpOptions {
    /// With the system's certificates and all else by default.
    #[must_use]
    pub fn new(url: impl Into<String>, name: impl Into<String>, role: Role) -> Self {
        let (url, name) = (url.into(), name.into());
        Self {
            url,
            name,
            role,
            tls: TlsFiles::default(),
            retry: Retry::default(),
            topology: Topology::default(),
        }
    }
}

/// Options that can't be used. Never names the URL, which holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// Not an AMQP URL.
    #[error("the broker's URL is malformed: {0}")]
    Url(String),
    /// A file of certificates, or a key, can't be read.
    #[error("the certificates can't be read: {0}")]
    Tls(String),
}

/// The bus over AMQP. Dropping it closes the connections; [`AmqpBus::close`] also waits for that.
pub struct AmqpBus {
    shared: Arc<Shared>,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

struct Shared {
    name: String,
    role: Role,
    tls: TlsFiles,
    retry: Retry,
    topology: Topology,
    uri: watch::Sender<AMQPUri>,
    health: watch::Sender<Health>,
    /// The connections, or why there are none.
    session: RwLock<Result<Arc<Session>, BusError>>,
    /// How often in a row `signet.reports` gave a consumer no answer.
    unanswered: Arc<AtomicU32>,
}

impl AmqpBus {
    /// Starts connecting, at once and then for ever. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BadOptions`]; that the broker can't be reached is no error, see [`Bus::health`].
    pub fn start(options: AmqpOptions) -> Result<Self, BadOptions> {
        let uri = parse(&options.url, options.role)?;
        // What can't be read now is most likely misspelt.
        read(&options.tls)?;
        let shared = Arc::new(Shared {
            name: options.name,
            role: options.role,
            tls: options.tls,
            retry: options.retry,
            topology: options.topology,
            uri: watch::Sender::new(uri),
            health: watch::Sender::new(Health::Down),
            session: RwLock::new(Err(BusError::Down("not connected yet".into()))),
            unanswered: Arc::default(),
        });
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(shared.clone().run(stop.clone()));
        Ok(Self { shared, stop, supervisor })
    }

    /// Connects anew, with other credentials or to another broker. The same URL changes nothing while there is a
    /// connection; one that the broker refused is tried again at once.
    ///
    /// # Errors
    /// [`BadOptions::Url`].
    pub fn reconnect_with(&self, url: &str) -> Result<(), BadOptions> {
        let new = parse(url, self.shared.role)?;
        let refused = matches!(self.shared.session(), Err(BusError::Refused(_)));
        self.shared.uri.send_if_modified(|uri| {
            let other = *uri != new;
            *uri = new;
            other || refused
        });
        Ok(())
    }

    /// Closes the connections and waits until the broker knows, two seconds at most.
    pub async fn close(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.supervisor).await {
            tracing::error!(%error, "the bus did not stop properly");
        }
    }
}

impl Drop for AmqpBus {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The files' content, as the library takes it.
fn read(files: &TlsFiles) -> Result<OwnedTLSConfig, BadOptions> {
    let bytes =
        |path: &PathBuf| std::fs::read(path).map_err(|e| BadOptions::Tls(format!("{}: {e}", path.display())));
    let text = |path: &PathBuf| {
        String::from_utf8(bytes(path)?).map_err(|_| BadOptions::Tls(format!("{}: not PEM", path.display())))
    };
    let identity =
        |own: &Identity| Ok(OwnedIdentity::PKCS8 { pem: bytes(&own.cert)?, key: bytes(&own.key)? });
    Ok(OwnedTLSConfig {
        identity: files.identity.as_ref().map(identity).transpose()?,
        cert_chain: files.ca.as_ref().map(text).transpose()?,
    })
}

fn parse(url: &str, role: Role) -> Result<AMQPUri, BadOptions> {
    let mut uri: AMQPUri = url.parse().map_err(BadOptions::Url)?;
    uri.query.heartbeat = Some(limits::AMQP_HEARTBEAT_SECONDS);
    uri.query.frame_max = Some(match role {
        Role::Agent => limits::AGENT_FRAME_BYTES_MAX,
        Role::Controller => limits::CONTROLLER_FRAME_BYTES_MAX,
    });
    Ok(uri)
}

/// The failures in a row, when a connection has broken that stood for so long. One that breaks at once is a failure too.
fn after_connection(failures: u32, stood: Duration) -> u32 {
    if stood.as_secs() >= limits::CONNECTION_GOOD_SECONDS { 0 } else { failures.saturating_add(1) }
}

/// Why a session ended or a pause is over.
enum Woken {
    Broken,
    NewUrl,
    Stopped,
}

impl Shared {
    /// Connects and follows the connections, for ever.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut uri = self.uri.subscribe();
        let mut failures = 0_u32;
        loop {
            let target = uri.borrow_and_update().clone();
            let server = format!("{}:{}", target.authority.host, target.authority.port);
            let opened = tokio::select! {
                opened = self.open(&target) => opened,
                () = stop.cancelled() => return,
            };
            let woken = match opened {
                Ok(session) => {
                    tracing::info!(server, "connected to the broker");
                    let since = Instant::now();
                    let woken = self.follow(Arc::new(session), &mut uri, &stop).await;
                    tracing::warn!(server, "disconnected from the broker");
                    failures = after_connection(failures, since.elapsed());
                    woken
                }
                Err(error) => {
                    // Once aloud; a broker that is away for an hour fills no log.
                    if failures == 0 {
                        tracing::warn!(server, %error, "no connection to the broker");
                    } else {
                        tracing::debug!(server, %error, failures, "no connection to the broker");
                    }
                    self.lose(error);
                    failures = failures.saturating_add(1);
                    Woken::Broken
                }
            };
            let woken = match woken {
                Woken::Broken => {
                    let pause = self.retry.after(failures.saturating_sub(1), fastrand::f64());
                    tokio::select! {
                        () = tokio::time::sleep(pause) => Woken::Broken,
                        _ = uri.changed() => Woken::NewUrl,
                        () = stop.cancelled() => Woken::Stopped,
                    }
                }
                other => other,
            };
            match woken {
                Woken::Broken => {}
                Woken::NewUrl => failures = 0,
                Woken::Stopped => return,
            }
        }
    }

    async fn open(&self, target: &AMQPUri) -> Result<Session, BusError> {
        // Small files, once for each connect.
        let tls = read(&self.tls).map_err(|error| BusError::Down(error.to_string()))?;
        Session::open(target, &self.name, self.role, &tls, self.unanswered.clone()).await
    }

    /// Lends the session out until it breaks or is not wanted any more, and closes it.
    async fn follow(
        &self,
        session: Arc<Session>,
        uri: &mut watch::Receiver<AMQPUri>,
        stop: &CancellationToken,
    ) -> Woken {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = Ok(session.clone());
        let mut look = tokio::time::interval(Duration::from_millis(limits::CONNECTION_CHECK_MILLISECONDS));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let woken = loop {
            tokio::select! {
                _ = look.tick() => {
                    if session.check() {
                        let health = if session.blocked() { Health::Blocked } else { Health::Up };
                        self.health.send_if_modified(|h| std::mem::replace(h, health) != health);
                    }
                }
                () = session.broken().cancelled() => break Woken::Broken,
                _ = uri.changed() => break Woken::NewUrl,
                () = stop.cancelled() => break Woken::Stopped,
            }
        };
        self.lose(BusError::Down("the connection broke".into()));
        session.close().await;
        woken
    }

    fn lose(&self, why: BusError) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = Err(why);
        self.health.send_if_modified(|h| std::mem::replace(h, Health::Down) != Health::Down);
    }

    fn session(&self) -> Result<Arc<Session>, BusError> {
        self.session.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl AmqpBus {
    /// The session, for what only controllers do.
    fn as_controller(&self) -> Result<Arc<Session>, BusError> {
        match self.shared.role {
            Role::Controller => self.shared.session(),
            Role::Agent => Err(BusError::Refused("agents declare and delete nothing".into())),
        }
    }
}

#[async_trait]
impl Bus for AmqpBus {
    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn declare(&self, queue: &Queue) -> Result<(), BusError> {
        let (session, shared, queue) = (self.as_controller()?, self.shared.clone(), queue.clone());
        to_the_end(async move { session.declare(&queue, &shared.topology).await }).await
    }

    async fn delete(&self, queue: &Queue) -> Result<(), BusError> {
        let (session, queue) = (self.as_controller()?, queue.clone());
        to_the_end(async move { session.delete(&queue).await }).await
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<u64>, BusError> {
        let (session, queue) = (self.shared.session()?, queue.clone());
        to_the_end(async move { session.depth(&queue).await }).await
    }

    async fn publish(&self, to: &Address, envelope: Envelope) -> Result<Published, BusError> {
        self.shared.session()?.publish(to, envelope).await
    }

    async fn consume(&self, queue: &Queue, mode: Mode, prefetch: u16) -> Result<Box<dyn Consumer>, BusError> {
        let (session, queue) = (self.shared.session()?, queue.clone());
        to_the_end(async move { session.consume(&queue, mode, prefetch).await }).await
    }
}

/// Finishes an operation also when its caller loses interest: lapin ends the whole connection when an answer comes
/// on a channel where nobody waits for it any more.
async fn to_the_end<T: Send + 'static>(
    operation: impl Future<Output = Result<T, BusError>> + Send + 'static,
) -> Result<T, BusError> {
    tokio::spawn(operation).await.unwrap_or_else(|e| Err(BusError::Down(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_is_spread_and_later_ones_back_off_to_a_minute() {
        let retry = Retry::default();
        assert_eq!(retry.after(0, 0.0), Duration::ZERO);
        assert_eq!(retry.after(0, 1.0), Duration::from_secs(15));
        assert_eq!(retry.after(1, 0.0), Duration::from_millis(500));
        assert_eq!(retry.after(3, 1.0), Duration::from_secs(4));
        assert_eq!(retry.after(7, 1.0), Duration::from_secs(60));
        assert_eq!(retry.after(u32::MAX, 1.0), Duration::from_secs(60));
        assert_eq!(retry.after(u32::MAX, 0.0), Duration::from_secs(30));
    }

    #[test]
    fn connections_that_break_at_once_come_back_ever_more_slowly() {
        let good = Duration::from_secs(limits::CONNECTION_GOOD_SECONDS);
        assert_eq!((after_connection(0, Duration::ZERO), after_connection(3, Duration::ZERO)), (1, 4));
        assert_eq!(after_connection(3, good), 0);
    }

    #[test]
    fn a_bad_url_is_told_at_once_and_without_its_password() {
        let Err(error) = parse("http://user:secret@host/", Role::Agent) else { panic!("http is not AMQP") };
        assert!(!error.to_string().contains("secret"), "{error}");
        let agent = parse("amqp://host/vhost", Role::Agent).unwrap();
        assert_eq!(agent.query.frame_max, Some(limits::AGENT_FRAME_BYTES_MAX));
    }
}
