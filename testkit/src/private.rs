//! MariaDB and RabbitMQ of one test's own, to be killed, wiped and restored.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::services::{Services, parse, run};

/// Services that belong to one test; gone with this value, and with the test's process. The ports stay the same
/// through every stop and start. Each call waits until it is done.
#[derive(Debug)]
pub struct PrivateServices {
    home: Home,
    urls: Services,
}

/// The services' directory. What runs in it is stopped before it goes, also when only half of it could be started.
#[derive(Debug)]
struct Home(TempDir);

impl Drop for Home {
    fn drop(&mut self) {
        run(Some(self.0.path()), &["purge"]);
    }
}

/// A copy of the database in SQL.
#[derive(Debug)]
pub struct Dump {
    file: PathBuf,
}

impl PrivateServices {
    /// Starts both, within about five seconds.
    ///
    /// # Panics
    /// When they don't start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Likewise; over TLS the broker hears only those who show a certificate of its authority:
    /// [`PrivateServices::tls_file`].
    ///
    /// # Panics
    /// When they don't start.
    pub async fn that_ask_for_certificates() -> Self {
        Self::start_with(&["--client-certificates", "rabbit"]).await
    }

    async fn start_with(arguments: &'static [&'static str]) -> Self {
        blocking(move || {
            let directory = tempfile::Builder::new().prefix("signet-private-").tempdir();
            let home = Home(directory.expect("a directory"));
            let owner = std::process::id().to_string();
            let printed =
                run(Some(home.0.path()), &[&["start", "--for", owner.as_str()], arguments].concat());
            let mut environment = parse(&printed);
            environment.entry("TEST_AMQP_MANAGEMENT_URL".into()).or_default();
            Self { home, urls: Services::named(&environment).expect("scripts/services named no services") }
        })
        .await
    }

    /// `mysql://…/signet`, a user that may do everything.
    #[must_use]
    pub fn mysql_url(&self) -> &str {
        &self.urls.mysql_url
    }

    /// `amqp://…/signet`, an administrator.
    #[must_use]
    pub fn amqp_url(&self) -> &str {
        &self.urls.amqp_url
    }

    /// `amqps://…/signet`, the same over TLS.
    #[must_use]
    pub fn amqps_url(&self) -> &str {
        &self.urls.amqps_url
    }

    /// A file of the broker's authority: `ca.pem`, `client.pem` and `client.key` of somebody it knows, `stranger.pem` and
    /// `stranger.key` of somebody it does not.
    #[must_use]
    pub fn tls_file(&self, name: &str) -> PathBuf {
        self.urls.amqp_ca_file.with_file_name(name)
    }

    /// Ends MariaDB with SIGKILL.
    pub async fn kill_mysql(&self) {
        self.services(&["kill9", "mysql"]).await;
    }

    /// Ends RabbitMQ with SIGKILL.
    pub async fn kill_rabbit(&self) {
        self.services(&["kill9", "rabbit"]).await;
    }

    /// Starts MariaDB again and waits until it answers.
    pub async fn start_mysql(&self) {
        self.services(&["start", "mysql"]).await;
    }

    /// Starts RabbitMQ again and waits until it answers.
    pub async fn start_rabbit(&self) {
        self.services(&["start", "rabbit"]).await;
    }

    /// Ends RabbitMQ with SIGKILL, deletes its data directory and starts it again.
    pub async fn wipe_broker(&self) {
        self.services(&["wipe-broker"]).await;
    }

    /// Copies the database `signet` as of one moment, while it is in use.
    ///
    /// # Panics
    /// When `mariadb-dump` fails.
    pub async fn dump(&self) -> Dump {
        let file = self.home.0.path().join(format!("dump-{}.sql", uuid::Uuid::new_v4().simple()));
        let mut command = self.client("mariadb-dump");
        let blobs = ["--hex-blob", "--single-transaction", "--add-drop-database", "--databases", "signet"];
        command.args(blobs).arg(format!("--result-file={}", file.display()));
        blocking(move || succeed(&mut command)).await;
        Dump { file }
    }

    /// Puts the database back as it was then.
    ///
    /// # Panics
    /// When `mariadb` fails.
    pub async fn restore(&self, dump: &Dump) {
        let mut command = self.client("mariadb");
        command.stdin(std::fs::File::open(&dump.file).expect("the dump is there"));
        blocking(move || succeed(&mut command)).await;
    }

    /// Runs `rabbitmqctl` on this broker, in about a second; gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        let directory = self.home.0.path().to_owned();
        let mut all = vec!["ctl".to_owned()];
        all.extend(arguments.iter().map(|a| (*a).to_owned()));
        blocking(move || run(Some(&directory), &all.iter().map(String::as_str).collect::<Vec<_>>())).await
    }

    /// The directory of both services' data and logs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.home.0.path()
    }

    async fn services(&self, arguments: &'static [&'static str]) {
        let directory = self.home.0.path().to_owned();
        blocking(move || run(Some(&directory), arguments)).await;
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let socket = self.home.0.path().join("mysql/sock");
        command.arg("--no-defaults").arg(format!("--socket={}", socket.display()));
        command.args(["--user=signet", "--password=signet"]).stdout(Stdio::null());
        command
    }
}

fn succeed(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().expect("MariaDB's client programs are installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
