//! The installation of one round: private services, controllers, agents, and a client that asks them.

use std::time::{Duration, Instant};

use fastrand::Rng;
use reqwest::Client;
use serde_json::{Value, json};
use signet_testkit::{PrivateServices, eventually};
use tokio::sync::Mutex;

use super::books::Asked;
use super::parts::{self, Program, TOKEN};

pub const HOSTS: [&str; 3] = ["alpha", "beta", "gamma"];
/// A post is repeated with its key for this long.
const POST_PATIENCE: Duration = Duration::from_secs(60);
/// `expires_in` + `timeout` + the deadline's grace, and time for agents that back off.
pub const SETTLE: Duration = Duration::from_secs(280);
const OPEN: [&str; 4] = ["waiting", "sent", "accepted", "running"];

pub struct World {
    pub services: PrivateServices,
    pub controllers: Mutex<Vec<Program>>,
    pub agents: Mutex<Vec<Program>>,
    pub urls: Vec<String>,
    pub root: tempfile::TempDir,
    client: Client,
}

/// What every program wrote outlives a round that fails.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = std::env::temp_dir().join(format!("signet-chaos-{}", std::process::id()));
            super::special::copy_dir(self.root.path(), &kept);
            println!("  logs and journals are in {}", kept.display());
        }
    }
}

/// What a task has come to.
pub enum End {
    /// Every target is final: the task's details.
    Final(Value),
    /// No such task.
    Unknown,
}

impl World {
    pub async fn start(controllers: usize) -> Self {
        let services = PrivateServices::start().await;
        let root = tempfile::tempdir().unwrap();
        let (mut programs, mut urls) = (Vec::new(), Vec::new());
        for number in 0..controllers {
            let (mut controller, url) = parts::controller(&services, root.path(), number);
            controller.start();
            programs.push(controller);
            urls.push(url);
        }
        let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let mut agents = Vec::new();
        for (number, host) in HOSTS.iter().enumerate() {
            let mut agent = parts::agent(root.path(), host, &urls[number % urls.len()]);
            agent.start();
            agents.push(agent);
        }
        let (controllers, agents) = (Mutex::new(programs), Mutex::new(agents));
        let world = Self { services, controllers, agents, urls, root, client };
        world.all_online(Duration::from_secs(120)).await;
        world
    }

    /// Waits until every host is online.
    pub async fn all_online(&self, patience: Duration) {
        eventually(patience, "all hosts to be online", async || {
            let servers = self.get("/api/servers?status=online").await?;
            (servers.as_array()?.len() == HOSTS.len()).then_some(())
        })
        .await;
    }

    /// Every program is at work.
    pub async fn check(&self) {
        self.controllers.lock().await.iter_mut().for_each(Program::check);
        self.agents.lock().await.iter_mut().for_each(Program::check);
    }

    /// `None` when nobody answers, or not with success.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let answer =
            self.client.get(format!("{}{path}", self.urls[0])).bearer_auth(TOKEN).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }

    /// `None` when nobody answers, or not with success.
    pub async fn post(&self, path: &str) -> Option<()> {
        let answer =
            self.client.post(format!("{}{path}", self.urls[0])).bearer_auth(TOKEN).send().await.ok()?;
        answer.status().is_success().then_some(())
    }

    /// Asks for one command on one host, again and again with the same key; `None` when nobody took it in time.
    pub async fn ask(&self, rng: &mut Rng, mark: &str, host: &str) -> Option<Asked> {
        self.ask_within(rng, mark, host, 60).await
    }

    /// Likewise, with this many seconds until it must have started.
    pub async fn ask_within(&self, rng: &mut Rng, mark: &str, host: &str, expires_in: u32) -> Option<Asked> {
        let exit_code = rng.i64(0..4);
        let pause = f64::from(rng.u32(0..20)) / 10.0;
        let root = self.root.path().display();
        let command = format!("echo {mark} >> {root}/{host}.marks; sleep {pause}; exit {exit_code}");
        let body = json!({
            "target_type": "node", "target": host, "command": command, "timeout": 10, "expires_in": expires_in,
        });
        let began = Instant::now();
        while began.elapsed() < POST_PATIENCE {
            let url = &self.urls[rng.usize(0..self.urls.len())];
            let request = self.client.post(format!("{url}/api/commands")).bearer_auth(TOKEN);
            let request = request.header("idempotency-key", format!("key-{mark}")).json(&body);
            if let Ok(answer) = request.send().await
                && answer.status().as_u16() == 201
                && let Ok(task) = answer.json::<Value>().await
            {
                let task_id = task["task_id"].as_str()?.to_owned();
                return Some(Asked { task_id, mark: mark.to_owned(), exit_code });
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        None
    }

    /// Waits until every target of a task is final.
    pub async fn end_of(&self, asked: &Asked) -> End {
        let url = format!("{}/api/tasks/{}", self.urls[0], asked.task_id);
        eventually(SETTLE, &format!("{} to be over", asked.mark), async || {
            let answer = self.client.get(&url).bearer_auth(TOKEN).send().await.ok()?;
            if answer.status().as_u16() == 404 {
                return Some(End::Unknown);
            }
            let detail: Value = answer.json().await.ok()?;
            let targets = detail["targets"].as_array()?;
            let open = targets.iter().any(|t| OPEN.iter().any(|s| t["state"] == *s));
            (!open).then_some(End::Final(detail))
        })
        .await
    }
}
