//! The programs of a round: controllers and agents as processes, which are killed and started again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use signet_testkit::PrivateServices;

pub const TOKEN: &str = "chaos-admin-token";
const JOIN: &str = "chaos-join-token";

/// A program that is killed and started again.
pub struct Program {
    pub name: String,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    pub fn start(&mut self) {
        if self.child.is_some() {
            return;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = (self.command)();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// A program ends when it is killed, and never by itself.
    pub fn check(&mut self) {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
        assert_eq!(ended, None, "{} ended by itself", self.name);
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port below the ephemeral range: a client that keeps trying a port inside it may connect to itself.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..30_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join(name);
    assert!(program.exists(), "{} is missing: build the whole workspace", program.display());
    program
}

/// A controller, and its address.
pub fn controller(services: &PrivateServices, root: &Path, number: usize) -> (Program, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let (mysql, amqp) = (services.mysql_url().to_owned(), services.amqp_url().to_owned());
    let (listen, data) = (address.clone(), root.join("controller"));
    let command = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet-controller"));
        command
            .env("SIGNET_DATABASE_URL", &mysql)
            .env("SIGNET_AMQP_URL", &amqp)
            .env("SIGNET_LISTEN", &listen)
            // Both share the master key, as every controller of an installation does.
            .env("SIGNET_DATA_DIR", &data)
            .env("SIGNET_ADMIN_TOKEN", TOKEN)
            .env("SIGNET_JOIN_TOKEN", JOIN);
        command
    };
    let name = format!("controller{number}");
    let log = root.join(format!("{name}.log"));
    (Program { name, command: Box::new(command), log, child: None }, format!("http://{address}"))
}

/// An agent that knows one of the controllers.
pub fn agent(root: &Path, hostname: &str, controller: &str) -> Program {
    let (host, url, data) = (hostname.to_owned(), controller.to_owned(), root.join(hostname));
    let path = program("signet-agent");
    let command = move || {
        let mut command = Command::new(&path);
        command
            .args(["--controller", &url, "--join-token", JOIN, "--hostname", &host, "--group", "chaos"])
            .arg("--data-dir")
            .arg(&data)
            .env_remove("SIGNET_DATA_DIR");
        command
    };
    let log = root.join(format!("{hostname}.log"));
    Program { name: hostname.to_owned(), command: Box::new(command), log, child: None }
}
