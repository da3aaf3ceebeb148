//! Where settings come from: flag > environment > TOML file > default.

use clap::Parser;
use serde::{Deserialize, Deserializer};

use super::Settings;
pub use super::values::SettingError;
use super::values::wrong;

/// A value as written, whichever TOML type it has.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Text(String),
        Whole(i64),
        List(Vec<String>),
    }
    Ok(Option::<Any>::deserialize(deserializer)?.map(|any| match any {
        Any::Text(text) => text,
        Any::Whole(number) => number.to_string(),
        Any::List(list) => list.join(","),
    }))
}

macro_rules! sources {
    ($($(#[doc = $doc:literal])+ $field:ident = $env:literal $(secret $file:ident = $file_env:literal)?;)*) => {
        /// The controller of a Signet fleet: it owns the HTTP API and the state.
        ///
        /// Each setting is taken from its flag, else from its environment variable, else from the TOML file (under the
        /// flag's name with underscores), else it has its default. Secrets are also read from files.
        #[derive(Debug, Clone, Default, Parser)]
        #[command(name = "signet-controller", version, about)]
        pub struct Flags {
            /// TOML file with settings
            #[arg(long, env = "SIGNET_CONFIG", value_name = "FILE")]
            pub config: Option<String>,
            /// Print the settings that would be used, without secrets, and exit
            #[arg(long)]
            pub check_config: bool,
            $($(#[doc = $doc])+ #[arg(long, env = $env, hide_env_values = true, value_name = "VALUE")]
            $field: Option<String>,
            $(
            /// File that holds the value of the flag without -file
            #[arg(long, env = $file_env, value_name = "FILE")]
            $file: Option<String>,
            )?)*
        }

        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct File {
            $(#[serde(deserialize_with = "text")] $field: Option<String>,
            $($file: Option<String>,)?)*
        }

        /// What is set, as text: trimmed and never empty.
        pub(super) struct Raw { $(pub(super) $field: Option<String>),* }

        /// Flag or variable before the file; an empty one counts as unset, as everywhere.
        fn merge(flags: Flags, file: File) -> Result<Raw, SettingError> {
            Ok(Raw { $($field: {
                #[allow(unused_mut, reason = "only secrets have a second source")]
                let mut found = set(flags.$field);
                $(if found.is_none() { found = set(read($file_env, flags.$file)?); })?
                if found.is_none() { found = set(file.$field); }
                $(if found.is_none() { found = set(read($file_env, file.$file)?); })?
                found
            }),* })
        }

        /// Every variable that is read.
        pub const VARIABLES: &[&str] = &["SIGNET_CONFIG", $($env, $($file_env,)?)*];
    };
}

sources! {
    /// Database: mysql://… or sqlite://… [default: SQLite in the data directory]
    database_url = "SIGNET_DATABASE_URL" secret database_url_file = "SIGNET_DATABASE_URL_FILE";
    /// Message broker: amqp://… or amqps://…
    amqp_url = "SIGNET_AMQP_URL" secret amqp_url_file = "SIGNET_AMQP_URL_FILE";
    /// What agents are told as the broker's address, if it differs
    agent_amqp_url = "SIGNET_AGENT_AMQP_URL" secret agent_amqp_url_file = "SIGNET_AGENT_AMQP_URL_FILE";
    /// The broker's management API, which gives each agent its own broker user
    amqp_management_url = "SIGNET_AMQP_MANAGEMENT_URL"
        secret amqp_management_url_file = "SIGNET_AMQP_MANAGEMENT_URL_FILE";
    /// Addresses to listen on, comma-separated [default: 127.0.0.1:8080]
    listen = "SIGNET_LISTEN";
    /// Port on 0.0.0.0, when the addresses to listen on are not set
    port = "PORT";
    /// Certificate for HTTPS on every address, in PEM; read again when it changes
    tls_cert = "SIGNET_TLS_CERT";
    /// Private key of that certificate, in PEM
    tls_key = "SIGNET_TLS_KEY";
    /// Certificates in PEM to trust at the broker and its management API besides the system's
    amqp_ca = "SIGNET_AMQP_CA";
    /// Certificate with which the controller shows the broker who it is, in PEM
    amqp_client_cert = "SIGNET_AMQP_CLIENT_CERT";
    /// Private key of that certificate, PKCS#8 in PEM
    amqp_client_key = "SIGNET_AMQP_CLIENT_KEY";
    /// What may go over the wire in plain beyond this machine: http, amqp, or both, comma-separated [default: nothing]
    allow_plain = "SIGNET_ALLOW_PLAIN";
    /// Requests of one token or log-in that are answered each second; 0 = any number [default: 2000]
    requests_per_second = "SIGNET_REQUESTS_PER_SECOND";
    /// Requests from one address that are answered each second; 0 = any number [default: 4000]
    address_requests_per_second = "SIGNET_ADDRESS_REQUESTS_PER_SECOND";
    /// Where keys and the embedded database lie [default: /var/lib/signet]
    data_dir = "SIGNET_DATA_DIR";
    /// How the outside reaches this controller
    public_url = "SIGNET_PUBLIC_URL";
    /// The installation's master key; made when absent [default: master.key in the data directory]
    master_key_file = "SIGNET_MASTER_KEY_FILE";
    /// API token with every right [default: admin.token in the data directory, made when absent]
    admin_token = "SIGNET_ADMIN_TOKEN" secret admin_token_file = "SIGNET_ADMIN_TOKEN_FILE";
    /// Password of the first admin
    admin_password = "SIGNET_ADMIN_PASSWORD" secret admin_password_file = "SIGNET_ADMIN_PASSWORD_FILE";
    /// Fixed token with which any agent may enrol; for development
    join_token = "SIGNET_JOIN_TOKEN" secret join_token_file = "SIGNET_JOIN_TOKEN_FILE";
    /// Whether anybody may register: open or closed [default: open while every listener is loopback]
    registration = "SIGNET_REGISTRATION";
    /// Give tokens of a user to whoever asks on this machine: true or false; for development [default: false]
    development_token = "SIGNET_DEVELOPMENT_TOKEN";
    /// Addresses or networks whose X-Forwarded-For is believed, comma-separated
    trusted_proxies = "SIGNET_TRUSTED_PROXIES";
    /// The program that deploys over SSH [default: ansible-playbook, from PATH]
    ansible_playbook = "SIGNET_ANSIBLE_PLAYBOOK";
    /// Transports that a repository's address may name, comma-separated: https, ssh, http, git, file [default: https,ssh]
    git_protocols = "SIGNET_GIT_PROTOCOLS";
    /// Whether hosts' keys must be known to deploy over SSH: pin (the first one is kept), strict or off [default: pin]
    ssh_host_keys = "SIGNET_SSH_HOST_KEYS";
    /// Days to keep output of commands [default: 30]
    retention_output_days = "SIGNET_RETENTION_OUTPUT_DAYS";
    /// Most output to keep in all, in GiB [default: 20]
    retention_output_gib = "SIGNET_RETENTION_OUTPUT_GIB";
    /// Days to keep tasks and runs [default: 180]
    retention_task_days = "SIGNET_RETENTION_TASK_DAYS";
    /// Days to keep the audit trail [default: 730]
    retention_audit_days = "SIGNET_RETENTION_AUDIT_DAYS";
    /// Form of log lines: text or json [default: text]
    log_format = "SIGNET_LOG_FORMAT";
    /// What is logged: a level, or directives as info,signet_controller=debug [default: info]
    log_level = "SIGNET_LOG_LEVEL";
}

/// A value that is set and not empty: `SIGNET_X=` counts as unset, as everywhere.
fn set(value: Option<String>) -> Option<String> {
    value.map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())
}

/// The text of the file with this name, if it has one.
fn read(name: &str, path: Option<String>) -> Result<Option<String>, SettingError> {
    let Some(path) = set(path) else { return Ok(None) };
    let text = std::fs::read_to_string(&path).map_err(|e| wrong(name, format!("{path}: {e}")))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// What is wrong with a TOML file and where, without the line itself: it may hold a secret.
fn misread(path: &str, text: &str, error: &toml::de::Error) -> SettingError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    wrong("SIGNET_CONFIG", format!("{path}, line {line}, column {column}: {}", error.message()))
}

impl Flags {
    /// Reads the file that the flags name, and parses everything.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn settings(self) -> Result<Settings, SettingError> {
        let path = self.config.clone().unwrap_or_default();
        let file = match read("SIGNET_CONFIG", self.config.clone())? {
            None => File::default(),
            Some(text) => toml::from_str(&text).map_err(|error| misread(&path, &text, &error))?,
        };
        Settings::parse(&merge(self, file)?)
    }
}

/// Variables of the other programs, which may share an environment with this one.
const ELSEWHERE: &[&str] = &[
    "SIGNET_CONTROLLER",
    "SIGNET_CONTROLLER_KEY",
    "SIGNET_FAULT",
    "SIGNET_GROUP",
    "SIGNET_HOSTNAME",
    "SIGNET_JTI",
    "SIGNET_LOG",
    "SIGNET_POLICY",
    "SIGNET_SERVICES_DIR",
    "SIGNET_SLOTS",
    "SIGNET_TOKEN",
    "SIGNET_TOKEN_FILE",
    "SIGNET_URL",
];

/// Names that look like settings and are none: most likely misspelt. They are only warned of, because the environment
/// is shared with programs that this one doesn't know.
pub fn misspelt(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let known = |name: &str| VARIABLES.contains(&name) || ELSEWHERE.contains(&name);
    names.into_iter().filter(|name| name.starts_with("SIGNET_") && !known(name)).collect()
}

/// What these flags come to.
#[cfg(test)]
pub(super) fn from(args: &[&str]) -> Result<Settings, SettingError> {
    Flags::try_parse_from([&["signet-controller"], args].concat()).unwrap().settings()
}

#[cfg(test)]
mod tests {
    use super::super::LogFormat;
    use super::*;

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let (config, token) = (dir.path().join("c.toml"), dir.path().join("token"));
        std::fs::write(&token, "t0ken\n").unwrap();
        let text = format!(
            "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nretention_task_days = 7\nlog_format = \"json\"\n\
             admin_token_file = {token:?}"
        );
        std::fs::write(&config, text).unwrap();
        let settings = from(&["--config", config.to_str().unwrap(), "--log-format", "text"]).unwrap();
        assert_eq!(settings.listen.len(), 2);
        assert_eq!(settings.retention.task_days, 7);
        assert_eq!(settings.retention.output_days, 30);
        assert_eq!(settings.log.format, LogFormat::Text);
        assert_eq!(settings.admin_token.unwrap().reveal(), "t0ken");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let cases: &[(&[&str], &str)] = &[
            (&["--listen", "nowhere"], "SIGNET_LISTEN"),
            (&["--port", "99999"], "PORT"),
            (&["--database-url", "postgres://x"], "SIGNET_DATABASE_URL"),
            (&["--amqp-url", "http://x"], "SIGNET_AMQP_URL"),
            (&["--agent-amqp-url", "amqp://x"], "SIGNET_AMQP_URL"),
            (&["--tls-cert", "x"], "SIGNET_TLS_KEY"),
            (&["--tls-key", "x"], "SIGNET_TLS_CERT"),
            (&["--amqp-client-cert", "x"], "SIGNET_AMQP_CLIENT_KEY"),
            (&["--allow-plain", "http,ftp"], "SIGNET_ALLOW_PLAIN"),
            (&["--requests-per-second", "many"], "SIGNET_REQUESTS_PER_SECOND"),
            (&["--trusted-proxies", "10.0.0.0/99"], "SIGNET_TRUSTED_PROXIES"),
            (&["--retention-output-days", "0"], "SIGNET_RETENTION_OUTPUT_DAYS"),
            (&["--retention-output-gib", "x"], "SIGNET_RETENTION_OUTPUT_GIB"),
            (&["--git-protocols", "https,ext"], "SIGNET_GIT_PROTOCOLS"),
            (&["--ssh-host-keys", "maybe"], "SIGNET_SSH_HOST_KEYS"),
            (&["--log-format", "xml"], "SIGNET_LOG_FORMAT"),
            (&["--admin-token-file", "/nonexistent"], "SIGNET_ADMIN_TOKEN_FILE"),
        ];
        for (args, name) in cases {
            assert_eq!(from(args).unwrap_err().name, *name, "{args:?}");
        }
    }

    #[test]
    fn an_empty_value_is_unset_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let (config, token) = (dir.path().join("c.toml"), dir.path().join("token"));
        std::fs::write(&token, "t0ken\n").unwrap();
        std::fs::write(&config, "retention_task_days = 7\nadmin_token = \"\"").unwrap();
        let (config, token) = (config.to_str().unwrap(), token.to_str().unwrap());
        // As `SIGNET_RETENTION_TASK_DAYS=` and so on would give them.
        let empty = ["--retention-task-days=", "--admin-token=", "--join-token-file=", "--config", config];
        let settings = from(&[&empty[..], &["--admin-token-file", token]].concat()).unwrap();
        assert_eq!(settings.retention.task_days, 7);
        assert_eq!(settings.admin_token.unwrap().reveal(), "t0ken");
        assert!(settings.join_token.is_none());
        assert!(from(&["--config="]).is_ok());
    }

    #[test]
    fn a_broken_file_is_named_without_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.toml");
        for text in [
            "port = 1\nadmin_token = \"s3cret",
            "port = 1\nadmin_token = s3cret",
            "port = 1\nport = \"s3cret\"",
        ] {
            std::fs::write(&config, text).unwrap();
            let error = from(&["--config", config.to_str().unwrap()]).unwrap_err().to_string();
            assert!(error.contains("line 2, column ") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.toml");
        std::fs::write(&config, "listne = \"x\"").unwrap();
        let error = from(&["--config", config.to_str().unwrap()]).unwrap_err();
        assert!(error.why.contains("listne"), "{error}");
        assert!(Flags::try_parse_from(["signet-controller", "--listne", "x"]).is_err());
    }

    #[test]
    fn a_misspelt_variable_is_noticed() {
        let names = ["SIGNET_LISTNE", "SIGNET_LISTEN", "SIGNET_TOKEN", "PATH"].map(str::to_owned);
        assert_eq!(misspelt(names), ["SIGNET_LISTNE"]);
    }
}
