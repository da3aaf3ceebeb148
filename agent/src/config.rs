//! Settings: flag > environment > TOML file > what an earlier start noted > default.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde::Deserialize;
use signet_common::ids::{Hostname, KeyId};
use signet_common::join::JoinToken;
use signet_common::keys::PublicKey;
use signet_common::tls::{Identity, TlsFiles};

use crate::identity::read_enrolment;
use crate::limits::{CONFIG_BYTES_MAX, SLOTS_DEFAULT, SLOTS_MAX, STOP_GRACE};
use crate::policy::{DeployQuestion, Policy};
use crate::run::CgroupChoice;

/// Where settings are looked for without `--config`.
const SYSTEM_FILE: &str = "/etc/signet/agent.toml";
/// Where a service keeps its data.
pub(crate) const DATA_DIR: &str = "/var/lib/signet-agent";

/// Everything that an agent needs to know to run.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The agent's own directory: key, journal, keyring.
    pub data_dir: PathBuf,
    /// The controller's address, `http://…` or `https://…`.
    pub controller: String,
    /// What this host calls itself.
    pub hostname: Hostname,
    /// The group it asks for at enrolment.
    pub group: Option<String>,
    /// Lets a new key in.
    pub join: Option<JoinToken>,
    /// The controller's key by its fingerprint, when it is known beforehand.
    pub fingerprint: Option<KeyId>,
    /// How TLS to the broker is set up.
    pub broker_tls: TlsFiles,
    /// What may run here.
    pub policy: Policy,
    /// Commands that run at the same time.
    pub slots: usize,
    /// Whether the process is the agent's alone: then it gives memory back when the agent has no work.
    pub alone: bool,
    /// What runs gets this long to end by itself when the agent stops.
    pub stop_grace: Duration,
    /// The program to re-exec for commands; its `main` begins with [`crate::launch::main_if_launcher`].
    pub launcher: PathBuf,
    /// Whether commands get cgroups.
    pub cgroup: CgroupChoice,
}

impl AgentConfig {
    /// An agent with defaults for all that is optional.
    #[must_use]
    pub fn new(data_dir: PathBuf, controller: String, hostname: Hostname) -> Self {
        let run = crate::run::RunnerConfig::new(data_dir.clone());
        Self {
            data_dir,
            controller,
            hostname,
            group: None,
            join: None,
            fingerprint: None,
            broker_tls: TlsFiles::default(),
            policy: Policy::default(),
            slots: SLOTS_DEFAULT,
            alone: false,
            stop_grace: STOP_GRACE,
            launcher: run.launcher,
            cgroup: run.cgroup,
        }
    }
}

/// The agent of Signet, a fleet control plane: verifies signed commands, runs them and reports.
#[derive(Debug, Parser)]
#[command(name = "signet-agent", version)]
pub struct CommandLine {
    /// What to do; without it the agent runs.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// See [`Flags`].
    #[command(flatten)]
    pub flags: Flags,
}

/// What else the program can do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Print the agent's public key in PEM, made if there is none
    ShowKey,
    /// Believe this controller key (PEM) from now on, and no keyring before the one that it signed
    Trust {
        /// The key's file
        file: PathBuf,
    },
    /// Look at what may run on this host
    Policy {
        /// What to do
        #[command(subcommand)]
        action: PolicyAction,
    },
    /// Join a fleet: enrol with a join token, start the service, and wait until this host is online
    Join,
    /// Leave the fleet: have this host's key revoked, stop the service, and forget key, journal and settings
    Leave {
        /// Only forget here; the controller is not told, and an admin has to revoke the key
        #[arg(long)]
        untold: bool,
    },
    /// Make this a new agent: forget the key and the journal
    Reset {
        /// Say that this is meant
        #[arg(long, required = true)]
        new_key: bool,
    },
}

/// What can be asked about the policy.
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Say whether a command may run here, and which rule decides; the exit code is 1 when it may not
    Check {
        /// The shell command
        #[arg(required_unless_present = "argv", conflicts_with = "argv")]
        command: Option<String>,
        /// As whom it is to run [default: the agent's own user]
        #[arg(long)]
        user: Option<String>,
        /// A program and its arguments, without a shell; the last of the flags
        #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "ARGUMENT")]
        argv: Option<Vec<String>>,
        /// Answer in JSON, as into a pipe
        #[arg(long)]
        json: bool,
    },
    /// Say whether a deployment may start here, and which rule decides; the exit code is 1 when it may not
    CheckDeploy {
        /// Which deployment
        #[command(flatten)]
        deployment: DeployQuestion,
        /// Answer in JSON, as into a pipe
        #[arg(long)]
        json: bool,
    },
}

/// Every setting as a flag and as an environment variable.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// The controller's address
    #[arg(long, global = true, env = "SIGNET_CONTROLLER", value_name = "URL")]
    pub controller: Option<String>,
    /// Lets this host join
    #[arg(long, global = true, env = "SIGNET_JOIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub join_token: Option<String>,
    /// The same from a file
    #[arg(long, global = true, env = "SIGNET_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// This host's name [default: the system's]
    #[arg(long, global = true, env = "SIGNET_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
    /// The group to join
    #[arg(long, global = true, env = "SIGNET_GROUP", value_name = "GROUP")]
    pub group: Option<String>,
    /// Key, journal and keyring [default: /var/lib/signet-agent]
    #[arg(long, global = true, env = "SIGNET_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The controller's public key (PEM), when the agent is enrolled by hand
    #[arg(long, global = true, env = "SIGNET_CONTROLLER_KEY", value_name = "FILE")]
    pub controller_key: Option<PathBuf>,
    /// Certificates in PEM to trust at the broker besides the system's
    #[arg(long, global = true, env = "SIGNET_AMQP_CA", value_name = "FILE")]
    pub amqp_ca: Option<PathBuf>,
    /// Certificate with which this host shows the broker who it is, in PEM
    #[arg(long, global = true, env = "SIGNET_AMQP_CLIENT_CERT", value_name = "FILE")]
    pub amqp_client_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(long, global = true, env = "SIGNET_AMQP_CLIENT_KEY", value_name = "FILE")]
    pub amqp_client_key: Option<PathBuf>,
    /// What may run here [default: /etc/signet/policy.toml, else policy.toml in the data directory]
    #[arg(long, global = true, env = "SIGNET_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Commands that run at the same time [default: 8]
    #[arg(long, global = true, env = "SIGNET_SLOTS", value_name = "NUMBER")]
    pub slots: Option<usize>,
    /// What is logged, as `tracing` filters say it [default: info]
    #[arg(long, global = true, env = "SIGNET_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// These settings in TOML [default: /etc/signet/agent.toml]
    #[arg(long, global = true, env = "SIGNET_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The TOML file: the flags' names with `_`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    controller: Option<String>,
    join_token: Option<String>,
    join_token_file: Option<PathBuf>,
    hostname: Option<String>,
    group: Option<String>,
    data_dir: Option<PathBuf>,
    controller_key: Option<PathBuf>,
    amqp_ca: Option<PathBuf>,
    amqp_client_cert: Option<PathBuf>,
    amqp_client_key: Option<PathBuf>,
    policy: Option<PathBuf>,
    slots: Option<usize>,
    log: Option<String>,
}

impl CommandLine {
    /// Reads flags and environment. The join token is one setting with two spellings, and a flag of either goes before
    /// the other's variable.
    #[must_use]
    pub fn read() -> Self {
        Self::read_from(Self::command().get_matches()).unwrap_or_else(|error| error.exit())
    }

    fn read_from(matches: ArgMatches) -> Result<Self, clap::Error> {
        let mut read = Self::from_arg_matches(&matches)?;
        let is_flag = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        match (is_flag("join_token"), is_flag("join_token_file")) {
            (true, false) => read.flags.join_token_file = None,
            (false, true) => read.flags.join_token = None,
            _ => {}
        }
        Ok(read)
    }
}

impl Flags {
    /// Fills what is not set from the TOML file.
    ///
    /// # Errors
    /// When the file has an unknown key or a bad value, or an explicit one is missing.
    pub fn with_file(mut self) -> anyhow::Result<Self> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None if Path::new(SYSTEM_FILE).exists() => read_file(Path::new(SYSTEM_FILE))?,
            None => File::default(),
        };
        // A token is one setting with two spellings: the nearer source wins whole.
        if self.join_token.is_none() && self.join_token_file.is_none() {
            (self.join_token, self.join_token_file) = (file.join_token, file.join_token_file);
        }
        self.controller = self.controller.or(file.controller);
        self.hostname = self.hostname.or(file.hostname);
        self.group = self.group.or(file.group);
        self.data_dir = self.data_dir.or(file.data_dir);
        self.controller_key = self.controller_key.or(file.controller_key);
        self.amqp_ca = self.amqp_ca.or(file.amqp_ca);
        self.amqp_client_cert = self.amqp_client_cert.or(file.amqp_client_cert);
        self.amqp_client_key = self.amqp_client_key.or(file.amqp_client_key);
        self.policy = self.policy.or(file.policy);
        self.slots = self.slots.or(file.slots);
        self.log = self.log.or(file.log);
        Ok(self)
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| DATA_DIR.into())
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// A clear message about what is missing or wrong.
    pub fn config(&self) -> anyhow::Result<AgentConfig> {
        let data_dir = self.data_dir();
        let noted = read_enrolment(&data_dir)?;
        let Some(controller) = self.controller.clone().or(noted.controller) else {
            bail!(
                "the controller's address is missing: give --controller URL or SIGNET_CONTROLLER at the first start"
            );
        };
        let hostname = match (&self.hostname, noted.hostname) {
            (Some(text), _) => text.parse().with_context(|| format!("hostname {text:?}"))?,
            (None, Some(noted)) => noted,
            (None, None) => own_hostname()?,
        };
        let join: Option<JoinToken> = self.token()?.map(|text| text.parse()).transpose()?;
        let key = self.controller_key.as_deref().map(read_public_key).transpose()?;
        let fingerprint = key.map(|k| k.id().clone());
        let fingerprint = fingerprint.or_else(|| join.as_ref().and_then(|j| j.fingerprint.clone()));
        let slots = self.slots.unwrap_or(SLOTS_DEFAULT);
        if !(1..=SLOTS_MAX).contains(&slots) {
            bail!("slots must be 1 to {SLOTS_MAX}");
        }
        Ok(AgentConfig {
            group: self.group.clone().or(noted.group),
            join,
            fingerprint: fingerprint.or(noted.fingerprint),
            broker_tls: self.broker_tls()?,
            policy: Policy::default().find(self.policy.as_deref(), &data_dir)?,
            slots,
            alone: true,
            ..AgentConfig::new(data_dir, controller, hostname)
        })
    }

    fn broker_tls(&self) -> anyhow::Result<TlsFiles> {
        let identity = match (self.amqp_client_cert.clone(), self.amqp_client_key.clone()) {
            (Some(cert), Some(key)) => Some(Identity { cert, key }),
            (None, None) => None,
            _ => bail!("give SIGNET_AMQP_CLIENT_CERT and SIGNET_AMQP_CLIENT_KEY, or neither"),
        };
        Ok(TlsFiles { ca: self.amqp_ca.clone(), identity })
    }

    fn token(&self) -> anyhow::Result<Option<String>> {
        match (&self.join_token, &self.join_token_file) {
            (Some(_), Some(_)) => bail!("give the join token or its file, not both"),
            (Some(text), None) => Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty())),
            (None, Some(file)) => Ok(Some(read_small(file)?.trim().to_owned()).filter(|t| !t.is_empty())),
            (None, None) => Ok(None),
        }
    }
}

/// Reads a public key in PEM.
///
/// # Errors
/// When the file can't be read or holds something else.
pub fn read_public_key(file: &Path) -> anyhow::Result<PublicKey> {
    PublicKey::from_pem(&read_small(file)?).with_context(|| file.display().to_string())
}

fn read_file(path: &Path) -> anyhow::Result<File> {
    toml::from_str(&read_small(path)?).with_context(|| format!("settings in {}", path.display()))
}

fn read_small(path: &Path) -> anyhow::Result<String> {
    let read = || -> io::Result<String> {
        if fs::metadata(path)?.len() > CONFIG_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "too large"));
        }
        fs::read_to_string(path)
    };
    read().with_context(|| path.display().to_string())
}

fn own_hostname() -> anyhow::Result<Hostname> {
    let name = nix::unistd::gethostname().context("this host's name")?;
    let name = name.to_string_lossy();
    name.parse().with_context(|| format!("this host's own name {name:?}: give --hostname NAME"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{DataDir, Enrolment};

    fn flags(dir: &Path) -> Flags {
        Flags { data_dir: Some(dir.to_owned()), ..Flags::default() }
    }

    #[test]
    fn later_starts_need_only_the_data_directory() {
        let root = tempfile::tempdir().unwrap();
        let error = flags(root.path()).config().unwrap_err().to_string();
        assert!(error.contains("--controller"), "{error}");
        let noted = Enrolment {
            controller: Some("https://c".into()),
            hostname: Some("web1".parse().unwrap()),
            group: Some("web".into()),
            fingerprint: None,
        };
        DataDir::open(root.path()).unwrap().enrol(&noted).unwrap();
        let config = flags(root.path()).config().unwrap();
        assert_eq!((config.controller.as_str(), config.hostname.as_str()), ("https://c", "web1"));
        let nearer = Flags { hostname: Some("WEB2".into()), ..flags(root.path()) };
        assert_eq!(nearer.config().unwrap().hostname.as_str(), "web2");
    }

    #[test]
    fn files_are_the_weaker_word_and_unknown_keys_stop_the_start() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("agent.toml");
        let token = root.path().join("token");
        fs::write(&token, "s3cret\n").unwrap();
        fs::write(&file, format!("controller = \"http://a\"\nslots = 3\njoin_token_file = {token:?}"))
            .unwrap();
        let read = |change: Flags| {
            let flags = Flags { config: Some(file.clone()), ..change };
            flags.with_file().and_then(|f| f.config())
        };
        let config = read(flags(root.path())).unwrap();
        assert_eq!((config.controller.as_str(), config.slots), ("http://a", 3));
        assert_eq!(config.join.unwrap().reveal(), "s3cret");
        let nearer = Flags {
            controller: Some("http://b".into()),
            join_token: Some("other".into()),
            ..flags(root.path())
        };
        let config = read(nearer).unwrap();
        assert_eq!((config.controller.as_str(), config.join.unwrap().reveal()), ("http://b", "other".into()));
        for bad in ["nonsense = 1", "slots = \"x\"", "slots = 0", "="] {
            fs::write(&file, bad).unwrap();
            let bad = read(Flags { controller: Some("http://b".into()), ..flags(root.path()) });
            assert!(bad.is_err());
        }
    }

    #[test]
    fn a_flag_of_the_token_goes_before_the_other_spellings_variable() {
        // The variables of the two spellings, as arguments that have a value without being given.
        let read = |given: &[&str]| {
            let command = CommandLine::command()
                .mut_arg("join_token", |arg| arg.env(None).default_value("from-env"))
                .mut_arg("join_token_file", |arg| arg.env(None).default_value("/from/env"));
            let flags = CommandLine::read_from(command.get_matches_from(given)).unwrap().flags;
            (flags.join_token, flags.join_token_file)
        };
        let (token, file) = (Some("t".to_owned()), Some(PathBuf::from("/f")));
        assert_eq!(read(&["signet-agent", "--join-token", "t"]), (token.clone(), None));
        assert_eq!(read(&["signet-agent", "--join-token-file", "/f"]), (None, file.clone()));
        assert_eq!(read(&["signet-agent", "show-key", "--join-token", "t"]), (token.clone(), None));
        let both = ["signet-agent", "--join-token", "t", "--join-token-file", "/f"];
        assert_eq!(read(&both), (token, file), "that is told as a mistake");
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
