//! What the controller is told: a plain struct with defaults. [`sources`] names every setting and finds its text in
//! flags, environment and file; the other files each say what the texts of one subject mean.

mod bus;
mod deploy;
mod log;
mod plain;
mod retention;
pub mod sources;
mod values;
mod wire;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use signet_common::AgentId;
use signet_common::tls::{Identity, TlsFiles};

pub use self::bus::BusSettings;
pub use self::deploy::{Deploying, GIT_PROTOCOLS, HostKeyPolicy};
pub use self::log::{LogFormat, LogSettings};
pub use self::plain::AllowPlain;
pub use self::retention::Retention;
use self::sources::Raw;
use self::values::{SettingError, url_of, word, wrong};
pub use self::wire::Rates;

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
            log: LogSettings::default(),
            local_agent: None,
        }
    }

    /// What these texts mean; what is not set is as in [`Self::embedded`].
    fn parse(raw: &Raw) -> Result<Self, SettingError> {
        let secret = |text: &Option<String>| text.as_ref().map(Secret::new);
        let default = Self::embedded(Path::new(raw.data_dir.as_deref().unwrap_or("/var/lib/signet")));
        let public_url = raw.public_url.as_deref();
        let registration = [("open", true), ("closed", false)];
        let yes_or_no = [("true", true), ("false", false)];
        let settings = Self {
            database_url: database_url(raw)?.unwrap_or(default.database_url),
            bus: BusSettings::parse(raw)?,
            listen: wire::listen(raw)?.unwrap_or(default.listen),
            tls: wire::tls(raw)?,
            broker_tls: wire::broker_tls(raw)?,
            allow_plain: AllowPlain::parse(raw)?,
            rates: Rates::parse(raw)?,
            data_dir: default.data_dir,
            public_url: public_url
                .map(|url| url_of("SIGNET_PUBLIC_URL", url, &["http", "https"]))
                .transpose()?,
            master_key_file: raw.master_key_file.as_ref().map_or(default.master_key_file, PathBuf::from),
            admin_token: secret(&raw.admin_token),
            admin_password: secret(&raw.admin_password),
            join_token: secret(&raw.join_token),
            registration: word("SIGNET_REGISTRATION", raw.registration.as_deref(), &registration)?,
            development_token: word(
                "SIGNET_DEVELOPMENT_TOKEN",
                raw.development_token.as_deref(),
                &yes_or_no,
            )?
            .unwrap_or(default.development_token),
            trusted_proxies: wire::trusted_proxies(raw)?,
            deploying: Deploying::parse(raw)?,
            retention: Retention::parse(raw)?,
            log: LogSettings::parse(raw)?,
            local_agent: default.local_agent,
        };
        plain::refuse(&settings)?;
        Ok(settings)
    }

    /// Whether anybody may register.
    #[must_use]
    pub fn registration_open(&self) -> bool {
        self.registration.unwrap_or_else(|| self.listen.iter().all(|address| address.ip().is_loopback()))
    }
}

fn database_url(raw: &Raw) -> Result<Option<Secret>, SettingError> {
    let Some(url) = &raw.database_url else { return Ok(None) };
    if !["mysql://", "mariadb://", "sqlite:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(wrong("SIGNET_DATABASE_URL", "must begin with mysql:// or sqlite://"));
    }
    Ok(Some(Secret::new(url)))
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
