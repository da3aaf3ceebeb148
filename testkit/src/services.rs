//! The services that all tests of a run share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the shared MariaDB and RabbitMQ are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// A user that may create databases, `mysql://…/signet`.
    pub mysql_url: String,
    /// An administrator of the broker, `amqp://…/signet`.
    pub amqp_url: String,
    /// The same over TLS, `amqps://…/signet`.
    pub amqps_url: String,
    /// The certificate authority to trust for that, a file in PEM.
    pub amqp_ca_file: PathBuf,
    /// The broker's HTTP API with the user in it, `http://user:password@host:port`.
    pub management_url: String,
}

impl Services {
    /// The services named by the variables that `scripts/services start --management` prints; when these are unset,
    /// it is asked to start its own, which then keep running for the next test.
    ///
    /// # Panics
    /// When there are none and none can be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Services> = OnceLock::new();
        SHARED.get_or_init(|| {
            let environment = std::env::vars().collect();
            Self::named(&environment).unwrap_or_else(|| {
                let started = run(None, &["start", "--management"]);
                Self::named(&parse(&started)).expect("scripts/services named no services")
            })
        })
    }

    pub(crate) fn named(environment: &HashMap<String, String>) -> Option<Self> {
        let get = |name: &str| environment.get(name).cloned();
        Some(Self {
            mysql_url: get("TEST_MYSQL_URL")?,
            amqp_url: get("TEST_AMQP_URL")?,
            amqps_url: get("TEST_AMQPS_URL")?,
            amqp_ca_file: get("TEST_AMQP_CA_FILE")?.into(),
            management_url: get("TEST_AMQP_MANAGEMENT_URL")?,
        })
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/services")
}

/// Runs `scripts/services` and returns what it printed. It takes seconds: call it where that blocks nobody.
pub(crate) fn run(directory: Option<&Path>, arguments: &[&str]) -> String {
    let mut command = Command::new(script());
    command.args(arguments);
    if let Some(directory) = directory {
        command.env("SIGNET_SERVICES_DIR", directory);
    }
    let output = command.output().expect("scripts/services could not be run");
    assert!(
        output.status.success(),
        "scripts/services {} failed; run it by hand, and scripts/setup before it:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("scripts/services printed no UTF-8")
}

/// Reads lines of `export NAME='value'`.
pub(crate) fn parse(text: &str) -> HashMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('\'').to_owned()))
    };
    text.lines().filter_map(line).collect()
}
