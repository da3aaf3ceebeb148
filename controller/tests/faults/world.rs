//! One controller and one agent on services of their own, and a client that asks them.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use signet_common::fault::Place;
use signet_testkit::eventually;

use super::programs::{self, Program, TOKEN};

/// Longer than what a killed controller's claim to the sweep and a lost connection to the broker keep waiting together, or
/// what it takes until a reports queue that lost its leader with the broker is made anew: four tries of 20 s, and pauses.
const PATIENCE: Duration = Duration::from_secs(180);
const HOST: &str = "alpha";
/// What every command ends with: a code that nothing else gives.
pub const EXIT_CODE: i64 = 3;
const ABORTED: i32 = 6;

pub struct World {
    pub controller: Program,
    pub agent: Program,
    pub client: Asker,
    pub host: Host,
    _root: tempfile::TempDir,
}

/// What is on the agent's disk.
#[derive(Clone)]
pub struct Host(PathBuf);

/// Asks the controller, also while it is being started again.
#[derive(Clone)]
pub struct Asker {
    client: Client,
    url: String,
}

impl World {
    /// Starts both, and waits until the agent is there.
    pub async fn start<P: Place>(mysql: &str, amqp: &str, fault: Fault<P>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (mut controller, url) = programs::controller(mysql, amqp, root.path());
        let mut agent = programs::agent(&url, HOST, root.path());
        controller.start(fault.of("controller-"));
        agent.start(fault.of("agent-"));
        let client = Asker { client: Client::builder().timeout(PATIENCE).build().unwrap(), url };
        let host = Host(root.path().to_owned());
        let world = Self { controller, agent, client, host, _root: root };
        eventually(PATIENCE, "the agent to be online", async || {
            let servers = world.client.get("/api/servers?status=online").await?;
            (servers.as_array()?.len() == 1).then_some(())
        })
        .await;
        world
    }

    pub fn program(&mut self, point: impl Place) -> &mut Program {
        match point.place().split('-').next() {
            Some("agent") => &mut self.agent,
            _ => &mut self.controller,
        }
    }

    /// Waits until the program has died at its point, and not of anything else.
    pub async fn dies(&mut self, point: impl Place) {
        use std::os::unix::process::ExitStatusExt as _;
        let program = self.program(point);
        let what = format!("{} to be reached (are the programs built with the tests?)", point.place());
        let status = eventually(PATIENCE, &what, async || program.ended()).await;
        assert_eq!(status.signal(), Some(ABORTED), "{status}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("controller:\n{}\nagent:\n{}", self.controller.log(), self.agent.log());
        }
    }
}

impl Host {
    /// The text of a command that leaves its mark and says it.
    pub fn marking(&self, mark: &str) -> String {
        format!("echo {mark} >> {}; echo {mark}; exit {EXIT_CODE}", self.path("marks").display())
    }

    /// The same, but it ends only when [`Host::open_gate`] was called.
    pub fn gated(&self, mark: &str) -> String {
        let wait = format!("until [ -e {} ]; do sleep 0.02; done", self.path("gate").display());
        format!("echo {mark} >> {}; {wait}; echo {mark}; exit {EXIT_CODE}", self.path("marks").display())
    }

    pub fn open_gate(&self) {
        std::fs::write(self.path("gate"), "").unwrap();
    }

    /// How often a command with this mark was started.
    pub fn starts(&self, mark: &str) -> usize {
        let marks = std::fs::read_to_string(self.path("marks")).unwrap_or_default();
        marks.lines().filter(|line| *line == mark).count()
    }

    /// Loses the end of what was written to the journal last.
    pub fn tear_journal(&self) {
        let files = std::fs::read_dir(self.path("agent/journal")).unwrap().map(|entry| entry.unwrap().path());
        let mut segments = files.filter(|path| path.extension().is_some_and(|e| e == "seg"));
        let (segment, none) = (segments.next().expect("a segment"), segments.next());
        assert_eq!(none, None, "the journal has only begun");
        let file = std::fs::File::options().write(true).open(segment).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }

    /// Something in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Asker {
    /// An answer to a GET; `None` when there is none, or none that is a success.
    pub async fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(path).await?).ok()
    }

    /// The same as it is written.
    pub async fn text(&self, path: &str) -> Option<String> {
        let answer = self.client.get(format!("{}{path}", self.url)).bearer_auth(TOKEN).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.text().await.ok()
    }

    /// Asks for a job once: the controller may die before it can answer, and has the job then.
    pub async fn ask_for_job(&self, path: &str, body: &Value) {
        let request = self.client.post(format!("{}{path}", self.url)).bearer_auth(TOKEN).json(body);
        if let Ok(answer) = request.send().await {
            let status = answer.status();
            assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap_or_default());
        }
    }

    /// Waits until the job is over, and gives it.
    pub async fn job(&self, id: &str) -> Value {
        eventually(PATIENCE, &format!("{id} to be over"), async || {
            let job = self.get(&format!("/api/v1/jobs/{id}")).await?["data"].take();
            job["finished_at"].is_string().then_some(job)
        })
        .await
    }

    /// Sends something again and again until it is taken; with the admin's token unless another is given.
    pub async fn say(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Value {
        let method: reqwest::Method = method.parse().unwrap();
        eventually(PATIENCE, &format!("{method} {path}"), async || {
            let request = self.client.request(method.clone(), format!("{}{path}", self.url));
            let request = request.bearer_auth(token.unwrap_or(TOKEN)).json(body);
            let answer = request.send().await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            answer.json().await.ok()
        })
        .await
    }

    /// Asks for a command, again and again with the same key until it is taken; gives the task's id.
    pub async fn ask(&self, key: &str, command: &str) -> String {
        let mut body = json!({"target_type": "node", "target": HOST, "command": command});
        // A broker takes its time to come back.
        (body["expires_in"], body["timeout"]) = (json!(600), json!(600));
        eventually(PATIENCE, "a command to be taken", async || {
            let request = self.client.post(format!("{}/api/commands", self.url)).bearer_auth(TOKEN);
            let answer = request.header("idempotency-key", key).json(&body).send().await.ok()?;
            // While it starts, the controller says that it is not ready.
            if answer.status().as_u16() != 201 {
                return None;
            }
            let task: Value = answer.json().await.ok()?;
            Some(task["task_id"].as_str().unwrap().to_owned())
        })
        .await
    }

    /// Waits until the task's only target runs.
    pub async fn running(&self, task: &str) {
        eventually(PATIENCE, &format!("{task} to run"), async || {
            let detail = self.get(&format!("/api/tasks/{task}")).await?;
            (detail["targets"][0]["state"] == "running").then_some(())
        })
        .await;
    }

    /// Waits until the task is over and gives its only result.
    pub async fn result(&self, task: &str) -> Value {
        let what = format!("{task} to be over");
        let results = eventually(PATIENCE, &what, async || {
            let results = self.get(&format!("/api/tasks/{task}/results")).await?;
            results.as_array().cloned().filter(|results| !results.is_empty())
        });
        let mut results = results.await;
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0)
    }

    /// How many tasks there are.
    pub async fn tasks(&self) -> usize {
        let tasks = eventually(PATIENCE, "the tasks", async || self.get("/api/tasks").await).await;
        tasks.as_array().unwrap().len()
    }
}

/// Where a program dies.
#[derive(Debug, Clone, Copy)]
pub struct Fault<P> {
    pub point: P,
    /// When it comes there this often.
    pub nth: u32,
    /// It only stands still.
    pub stop: bool,
}

impl<P: Place> Fault<P> {
    /// What `SIGNET_FAULT` says to a program: nothing, if it is not the one that dies.
    fn of(&self, program: &str) -> Option<String> {
        let name = self.point.place();
        let stop = if self.stop { ":stop" } else { "" };
        name.starts_with(program).then(|| format!("{name}:{}{stop}", self.nth))
    }
}
