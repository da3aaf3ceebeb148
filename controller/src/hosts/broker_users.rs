//! A broker user for each agent, over RabbitMQ's management API (DESIGN 4).
//!
//! A user may read its agent's queue, write `signet.up`, and nothing else. It is made again with every hello, because
//! the broker may lose everything at any moment, users included.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use serde_json::json;
use signet_common::bus::Queue;
use signet_common::bus::amqp::BrokerUrl;
use signet_common::time::Micros;
use signet_common::tls::TlsFiles;
use signet_common::{AgentId, StartId};
use tokio::sync::Semaphore;

use super::model::KeyStanding;
use super::store;
use crate::app::App;
use crate::error::{Error, Result};
use crate::limits::{
    BATCH_ROWS_MAX, BROKER_USER_KEPT_SECONDS, BROKER_USERS_LOOK_SECONDS, MANAGEMENT_ANSWER_SECONDS_MAX,
    MANAGEMENT_CALLS_MAX, MANAGEMENT_CONNECT_SECONDS_MAX, RETRY_AFTER_SECONDS,
};
use crate::settings::Secret;

/// What an agent may write to: the exchange for reports and heartbeats.
const WRITES: &str = r"^signet\.up$";
/// What fits no name.
const NOTHING: &str = "^$";
/// What the tag is bound to that is an agent's password.
const PASSWORD_USE: &[u8] = b"broker-password";

/// The broker's users, as far as they are ours. Cheap to clone.
#[derive(Clone)]
pub struct BrokerUsers(Arc<Inner>);

struct Inner {
    http: Client,
    base: Url,
    agents: BrokerUrl,
    /// Bounds how many calls the broker has to answer at a time, as when a whole fleet says hello.
    room: Semaphore,
}

impl fmt::Debug for BrokerUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrokerUsers")
    }
}

/// Why the management API did not do it. Names neither its URL nor what it was sent: both hold passwords.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagementError {
    /// No answer in time.
    #[error("the broker's management API does not answer: {0}")]
    Away(String),
    /// Another answer than it should be: 401 means that its user or password is wrong.
    #[error("the broker's management API answers {0}")]
    Status(StatusCode),
}

impl From<reqwest::Error> for ManagementError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        Self::Away(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
    }
}

/// Regular expressions that say what a user may configure, write and read.
#[derive(Debug, Serialize)]
struct Permissions {
    configure: &'static str,
    write: &'static str,
    read: String,
}

impl Permissions {
    fn of(agent: &AgentId) -> Self {
        // Names of queues are letters, digits and dots.
        let queue = Queue::Agent(agent.clone()).name().replace('.', r"\.");
        Self { configure: NOTHING, write: WRITES, read: format!("^{queue}$") }
    }
}

/// The user of an agent is called as its queue.
fn user(agent: &AgentId) -> String {
    Queue::Agent(agent.clone()).name()
}

/// The agent whose user this is.
fn agent_of(user: &str) -> Option<AgentId> {
    user.strip_prefix("signet.agent.")?.parse().ok()
}

impl BrokerUsers {
    /// Over the management API at `management` (`http(s)://user:password@host:port`), for the broker and vhost that
    /// agents are told, `agents`.
    ///
    /// # Errors
    /// When a URL is malformed or the certificates can't be read.
    pub fn new(management: &Secret, agents: &Secret, tls: &TlsFiles) -> anyhow::Result<Self> {
        // The parser's errors do not repeat the URL.
        let base = Url::parse(management.reveal()).context("SIGNET_AMQP_MANAGEMENT_URL")?;
        let complete = base.has_host() && !base.username().is_empty() && base.password().is_some();
        anyhow::ensure!(complete, "SIGNET_AMQP_MANAGEMENT_URL must name a user, its password and a host");
        let http = Client::builder()
            .tls_backend_preconfigured(crate::tls::client(tls)?)
            // It would see the password.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(MANAGEMENT_CONNECT_SECONDS_MAX))
            .timeout(Duration::from_secs(MANAGEMENT_ANSWER_SECONDS_MAX))
            .build()?;
        let agents = BrokerUrl::parse(agents.reveal())?;
        let room = Semaphore::new(MANAGEMENT_CALLS_MAX);
        Ok(Self(Arc::new(Inner { http, base, agents, room })))
    }

    /// Makes an agent's user with this password, or gives it this password, and says how the agent connects with it. To
    /// be done twice does no harm, and what was begun and not ended is done by the next hello.
    async fn make(&self, agent: &AgentId, password: &str) -> Result<Secret, ManagementError> {
        let (user, vhost) = (user(agent), self.0.agents.vhost());
        // Without a tag it has no business with the management API.
        let account = json!({"password": password, "tags": ""});
        self.call(Method::PUT, &["users", &user], Some(&account)).await?;
        self.call(Method::PUT, &["permissions", vhost, &user], Some(&Permissions::of(agent))).await?;
        Ok(Secret::new(self.0.agents.as_user(&user, password)))
    }

    /// Deletes an agent's user; the broker then closes its connections. One that is not there is fine.
    async fn delete(&self, agent: &AgentId) -> Result<(), ManagementError> {
        match self.call(Method::DELETE, &["users", &user(agent)], None::<&()>).await {
            Ok(_) | Err(ManagementError::Status(StatusCode::NOT_FOUND)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The agents that have a user in our vhost.
    async fn there(&self) -> Result<Vec<AgentId>, ManagementError> {
        #[derive(Deserialize)]
        struct Permission {
            user: String,
        }
        let path = ["vhosts", self.0.agents.vhost(), "permissions"];
        let all: Vec<Permission> = self.call(Method::GET, &path, None::<&()>).await?.json().await?;
        Ok(all.iter().filter_map(|permission| agent_of(&permission.user)).collect())
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<reqwest::Response, ManagementError> {
        let closed = |_| ManagementError::Away("the controller stops".into());
        let turn = self.0.room.acquire();
        let late = |_| ManagementError::Away("too many calls wait for it".into());
        let turn = tokio::time::timeout(Duration::from_secs(MANAGEMENT_ANSWER_SECONDS_MAX), turn).await;
        let _turn = turn.map_err(late)?.map_err(closed)?;
        let mut url = self.0.base.clone();
        let segments = url.path_segments_mut();
        let mut segments = segments.map_err(|()| ManagementError::Away("its address has no path".into()))?;
        segments.pop_if_empty().push("api").extend(path);
        drop(segments);
        // The client takes user and password out of the URL into a header.
        let mut request = self.0.http.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(ManagementError::Status(status)),
        }
    }
}

/// How an accepted agent connects: with a user of its own, which is made now, or with the shared one. `None` without a
/// broker. The password is the same for all hellos of one start of the agent, whichever controller answers: an hourly
/// hello breaks no connection, and of two at once neither makes the other's answer wrong.
///
/// # Errors
/// 503 when the user can't be made; 403 when the key was revoked meanwhile.
pub(super) async fn broker_of(app: &App, agent: &AgentId, start: &StartId) -> Result<Option<Secret>> {
    let Some(users) = &app.broker_users else {
        return Ok(app.settings.bus.agents_url().cloned());
    };
    let secret = [PASSWORD_USE, agent.as_str().as_bytes(), start.to_string().as_bytes()].concat();
    let url = users.make(agent, &hex::encode(app.keys.master().tag(&secret))).await.map_err(|error| {
        tracing::error!(%agent, %error, "the agent's broker user can't be made");
        let message = "the broker's management API is away: this agent gets no broker user now".into();
        Error::Unavailable { message, retry_after: RETRY_AFTER_SECONDS }
    })?;
    // Who revoked the key before the user was there could not delete it.
    if app.hosts.agent(agent).await?.standing()? != KeyStanding::Accepted {
        forget(app, agent).await;
        return Err(Error::Forbidden("this key was revoked or replaced".into()));
    }
    Ok(Some(url))
}

/// Deletes the user of an agent whose key no longer counts. One that stays is found by [`run`].
pub(super) async fn forget(app: &App, agent: &AgentId) {
    let Some(users) = &app.broker_users else { return };
    if let Err(error) = users.delete(agent).await {
        tracing::warn!(%agent, %error, "the agent's broker user was not deleted; it is tried again");
    }
}

/// Looks for users that should be gone, until the controller stops.
pub(crate) async fn run(app: App) {
    loop {
        if let Some(users) = &app.broker_users
            && let Err(error) = tidy(&app, users).await
        {
            tracing::warn!(%error, "old broker users can't be looked for now");
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(BROKER_USERS_LOOK_SECONDS)) => {}
        }
    }
}

/// Deletes the users of revoked keys, and of replaced ones when nothing of theirs can still come. Keys that this database
/// does not know keep theirs: it may have been restored, and needs their word.
async fn tidy(app: &App, users: &BrokerUsers) -> anyhow::Result<()> {
    let replaced_before = Micros::now().plus_seconds(-BROKER_USER_KEPT_SECONDS);
    for some in users.there().await?.chunks(BATCH_ROWS_MAX) {
        for agent in store::gone(&app.store, some, replaced_before).await? {
            users.delete(&agent).await?;
            tracing::info!(%agent, "the broker user of a key that no longer counts was deleted");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(management: &str) -> anyhow::Result<BrokerUsers> {
        BrokerUsers::new(
            &Secret::new(management),
            &Secret::new("amqp://a:b@127.0.0.1/x"),
            &TlsFiles::default(),
        )
    }

    #[test]
    fn permissions_name_one_queue_and_one_exchange() {
        let agent: AgentId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        let permissions = serde_json::to_value(Permissions::of(&agent)).unwrap();
        let read = r"^signet\.agent\.0123456789abcdef0123456789abcdef01234567$";
        assert_eq!(permissions, json!({"configure": "^$", "write": r"^signet\.up$", "read": read}));
        assert_eq!(agent_of(&user(&agent)), Some(agent));
        assert_eq!((agent_of("signet"), agent_of("signet.agent.x")), (None, None));
    }

    #[tokio::test]
    async fn no_error_names_a_password() {
        for bad in
            ["http://127.0.0.1:1", "http://user@127.0.0.1:1", "http://user:s3cret@", "http://user:s3cret@x:y"]
        {
            assert!(!format!("{:#}", users(bad).unwrap_err()).contains("s3cret"), "{bad}");
        }
        // Nobody listens on port 1.
        let users = users("http://user:s3cret@127.0.0.1:1").unwrap();
        let agent = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        let error = users.make(&agent, "hidden").await.unwrap_err();
        let told = format!("{error} {error:?} {users:?}");
        assert!(matches!(error, ManagementError::Away(_)), "{told}");
        assert!(!told.contains("s3cret") && !told.contains("hidden"), "{told}");
    }
}
