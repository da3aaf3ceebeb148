//! The agent's program as a test starts it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use signet_testkit::eventually;

use super::support::{JOIN_TOKEN, PATIENCE, TestApp};

/// A running agent. Dropped, it is killed, and what it runs with it.
pub struct Agent {
    pub hostname: String,
    pub data: PathBuf,
    /// Where its next start dies, as `SIGNET_FAULT` says it.
    pub fault: Option<String>,
    base: String,
    group: String,
    child: Option<Child>,
}

/// The program beside the tests: `cargo build -p signet-agent`, or a run of the whole workspace, makes it.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("the test has a path");
    let program = tests.ancestors().nth(2).expect("target/debug/deps/test").join("signet-agent");
    assert!(program.exists(), "{} is missing: cargo build -p signet-agent", program.display());
    program
}

impl Agent {
    pub async fn start(app: &TestApp, root: &Path, hostname: &str, group: &str) -> Self {
        let mut agent = Self {
            hostname: hostname.to_owned(),
            data: root.join(hostname),
            fault: None,
            base: app.base.clone(),
            group: group.to_owned(),
            child: None,
        };
        agent.spawn();
        agent.online(app).await;
        agent
    }

    /// One that has joined before, and needs nothing but its data directory.
    pub async fn joined(app: &TestApp, root: &Path, hostname: &str) -> Self {
        let data = root.join(hostname);
        let (hostname, base, group) = (hostname.to_owned(), String::new(), String::new());
        let mut agent = Self { hostname, data, fault: None, base, group, child: None };
        agent.start_program(&[]);
        agent.online(app).await;
        agent
    }

    pub fn spawn(&mut self) {
        let (base, hostname, group) = (self.base.clone(), self.hostname.clone(), self.group.clone());
        self.start_program(&[
            "--controller",
            &base,
            "--join-token",
            JOIN_TOKEN,
            "--hostname",
            &hostname,
            "--group",
            &group,
        ]);
    }

    fn start_program(&mut self, args: &[&str]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.data.with_extension("log"));
        let child = Command::new(program())
            .args(args)
            .arg("--data-dir")
            .arg(&self.data)
            .env_remove("SIGNET_DATA_DIR")
            .envs(self.fault.as_ref().map(|fault| ("SIGNET_FAULT", fault)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn();
        self.child = Some(child.expect("the agent starts"));
    }

    pub async fn online(&self, app: &TestApp) {
        let path = format!("/api/servers/{}", self.hostname);
        eventually(PATIENCE, &format!("{} to be online", self.hostname), async || {
            let answer = app.get(&path).await;
            (answer.status.as_u16() == 200 && answer.json()["status"] == "online").then_some(())
        })
        .await;
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
        }
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let id = child.id().to_string();
            Command::new("kill").arg(id).status().expect("kill runs");
            tokio::task::spawn_blocking(move || child.wait()).await.expect("no panic").expect("it ends");
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}
