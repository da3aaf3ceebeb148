//! What the controller is told: a plain struct with defaults. [`sources`] fills it from flags, environment and file.

mod deploy;
pub mod sources;
mod wire;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use signet_common::AgentId;
use signet_common::tls::{Identity, TlsFiles};

pub use self::deploy::{Deploying, GIT_PROTOCOLS, HostKeyPolicy};
pub use self::wire::{AllowPlain, Rates};

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` out of every log.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

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
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Output of commands, in days.
    pub output_days: u32,
    /// Most output in all, in bytes.
    pub output_bytes: u64,
    /// Tasks and runs, in days.
    pub task_days: u32,
    /// The audit trail, in days.
    pub audit_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { output_days: 30, output_bytes: 20 << 30, task_days: 180, audit_days: 730 }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: `info`, or directives as `info,signet_controller::dispatch=debug`.
    pub level: String,
}

/// Everything that the controller is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `mysql://…` or `sqlite://…`.
    pub database_url: Secret,
    /// Which bus.
    pub bus: BusSettings,
    /// Where to listen; every surface is served on each. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The certificate that is shown there; `None` speaks plain HTTP.
    pub tls: Option<Identity>,
    /// How TLS to the broker is set up.
    pub broker_tls: TlsFiles,
    /// What may go over the wire in plain beyond this machine.
    pub allow_plain: AllowPlain,
    /// How many requests are answered each second.
    pub rates: Rates,
    /// Where keys and, by default, the database lie.
    pub data_dir: PathBuf,
    /// How the outside reaches this controller, without a final slash.
    pub public_url: Option<String>,
    /// Where the master key lies; made when absent.
    pub master_key_file: PathBuf,
    /// An API token with every right. Unset: `admin.token` in the data directory, made when absent.
    pub admin_token: Option<Secret>,
    /// The first admin's password.
    pub admin_password: Option<Secret>,
    /// A fixed token with which any agent may enrol. For development.
    pub join_token: Option<Secret>,
    /// Whether anybody may register; unset: only while every listener is loopback.
    pub registration: Option<bool>,
    /// Gives tokens of a `user` to whoever asks on this machine. For development.
    pub development_token: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What deployments are told.
    pub deploying: Deploying,
    /// How long things are kept.
    pub retention: Retention,
    /// What is logged.
    pub log: LogSettings,
    /// The agent in this process, which needs no join token and no broker. Only a program that embeds the controller
    /// sets it.
    pub local_agent: Option<AgentId>,
}

impl Settings {
    /// The embedded default: SQLite in `data_dir`, the bus in this process, listening on loopback.
    #[must_use]
    pub fn embedded(data_dir: &Path) -> Self {
        Self {
            database_url: Secret::new(crate::store::Store::sqlite_url(&data_dir.join("signet.db"))),
            bus: BusSettings::InProcess,
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            tls: None,
            broker_tls: TlsFiles::default(),
            allow_plain: AllowPlain::default(),
            rates: Rates::default(),
            data_dir: data_dir.to_owned(),
            public_url: None,
            master_key_file: data_dir.join("master.key"),
            admin_token: None,
            admin_password: None,
            join_token: None,
            registration: None,
            development_token: false,
            trusted_proxies: Vec::new(),
            deploying: Deploying::default(),
            retention: Retention::default(),
            log: LogSettings { format: LogFormat::Text, level: "info".into() },
            local_agent: None,
        }
    }
}

impl Settings {
    /// Whether anybody may register.
    #[must_use]
    pub fn registration_open(&self) -> bool {
        self.registration.unwrap_or_else(|| self.listen.iter().all(|address| address.ip().is_loopback()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_printed() {
        let mut settings = Settings::embedded(Path::new("/tmp/x"));
        settings.admin_token = Some(Secret::new("s3cret"));
        settings.database_url = Secret::new("mysql://root:s3cret@db/x");
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
