//! The programs of a test: a controller and an agent as processes, which die at a point and are started again.

use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub const TOKEN: &str = "faults-admin-token";
const JOIN: &str = "faults-join-token";

/// A program that is started more than once.
pub struct Program {
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    /// Starts it, to die where `SIGNET_FAULT` says.
    pub fn start(&mut self, fault: Option<String>) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = (self.command)();
        // Where a core dump would go.
        command.current_dir(self.log.parent().unwrap());
        command.envs(fault.map(|fault| ("SIGNET_FAULT", fault)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// How it ended, when it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// Whether a signal keeps it from going on.
    pub fn stands_still(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The state follows the name, which is in parentheses.
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        let status = Command::new("kill").args(["-CONT", &self.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
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

/// A controller, and its URL.
pub fn controller(mysql: &str, amqp: &str, root: &Path) -> (Program, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let (mysql, amqp) = (mysql.to_owned(), amqp.to_owned());
    let (listen, data) = (address.clone(), root.join("controller"));
    let command = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet-controller"));
        command
            .env("SIGNET_DATABASE_URL", &mysql)
            .env("SIGNET_AMQP_URL", &amqp)
            .env("SIGNET_LISTEN", &listen)
            .env("SIGNET_DATA_DIR", &data)
            .env("SIGNET_GIT_PROTOCOLS", "file")
            .env("SIGNET_ADMIN_TOKEN", TOKEN)
            .env("SIGNET_JOIN_TOKEN", JOIN);
        command
    };
    let program = Program { command: Box::new(command), log: root.join("controller.log"), child: None };
    (program, format!("http://{address}"))
}

/// An agent that runs one command at a time, and deploys below `srv`.
pub fn agent(controller: &str, hostname: &str, root: &Path) -> Program {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("signet-agent");
    assert!(path.exists(), "{} is missing: test the whole workspace", path.display());
    let (url, host, data) = (controller.to_owned(), hostname.to_owned(), root.join("agent"));
    std::fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    std::fs::write(data.join("policy.toml"), format!("deploy_roots = [{:?}]\n", root.join("srv"))).unwrap();
    let command = move || {
        let mut command = Command::new(&path);
        command
            .args(["--controller", &url, "--join-token", JOIN, "--hostname", &host, "--slots", "1"])
            .arg("--data-dir")
            .arg(&data)
            .env_remove("SIGNET_DATA_DIR");
        command
    };
    Program { command: Box::new(command), log: root.join("agent.log"), child: None }
}
