//! Which bus carries the messages.

use super::Secret;
use super::sources::Raw;
use super::values::{SettingError, url_of, wrong};

/// Which bus carries the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusSettings {
    /// Inside this process; reaches only the agent inside.
    InProcess,
    /// A broker that speaks AMQP 0-9-1.
    Amqp {
        /// Where the controller connects (`amqp://…` or `amqps://…`).
        url: Secret,
        /// What agents are told, if it differs.
        agent_url: Option<Secret>,
        /// RabbitMQ's management API, which gives each agent its own broker user.
        management_url: Option<Secret>,
    },
}

impl BusSettings {
    /// What agents are told as the broker, unless each has a user of its own.
    #[must_use]
    pub fn agents_url(&self) -> Option<&Secret> {
        match self {
            Self::InProcess => None,
            Self::Amqp { url, agent_url, .. } => Some(agent_url.as_ref().unwrap_or(url)),
        }
    }

    pub(super) fn parse(raw: &Raw) -> Result<Self, SettingError> {
        let agent_url = amqp("SIGNET_AGENT_AMQP_URL", raw.agent_amqp_url.as_deref())?;
        let management = raw.amqp_management_url.as_deref();
        let management_url = management
            .map(|text| url_of("SIGNET_AMQP_MANAGEMENT_URL", text, &["http", "https"]))
            .transpose()?;
        match amqp("SIGNET_AMQP_URL", raw.amqp_url.as_deref())? {
            Some(url) => Ok(Self::Amqp { url, agent_url, management_url: management_url.map(Secret::new) }),
            None if agent_url.is_some() || management_url.is_some() => Err(wrong(
                "SIGNET_AMQP_URL",
                "must be set when agents are told a broker or its management API",
            )),
            None => Ok(Self::InProcess),
        }
    }
}

/// A broker's address. A vhost of "/" is written %2f, so a final slash is an empty vhost and matters: it is kept as it is.
fn amqp(name: &str, text: Option<&str>) -> Result<Option<Secret>, SettingError> {
    let Some(text) = text else { return Ok(None) };
    url_of(name, text, &["amqp", "amqps"]).map(|_| Some(Secret::new(text)))
}
