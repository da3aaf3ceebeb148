//! A controller that is killed in the middle of a job, and started again.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use signet_testkit::{Pair, Parts, eventually, on_both_pairs};

use crate::leases::{body, hanging_ansible};
use crate::support::{ADMIN_TOKEN, PATIENCE};

on_both_pairs!(nothing_of_a_killed_controller_goes_on);

/// How long a dead controller's lease may last, and a bit.
const LEASE: Duration = Duration::from_secs(60);

/// The program, and where it is heard.
struct Program {
    child: Child,
    base: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Program {
    fn start(parts: &Parts, data: &Path, ansible: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet-controller"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SIGNET_"))
        {
            command.env_remove(name);
        }
        command.env_remove("PORT");
        if let Some(url) = parts.amqp_url() {
            command.env("SIGNET_AMQP_URL", url);
        }
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .env("SIGNET_DATABASE_URL", parts.database_url())
            .env("SIGNET_DATA_DIR", data)
            .env("SIGNET_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("SIGNET_ANSIBLE_PLAYBOOK", ansible)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let base = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Self { child, base }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let request = Client::new().request(method, format!("{}{path}", self.base)).bearer_auth(ADMIN_TOKEN);
        let request = body.into_iter().fold(request, |request, body| request.json(body));
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    async fn until(&self, path: &str, patience: Duration, wanted: &str) -> Value {
        eventually(patience, wanted, async || {
            let job = self.ask(Method::GET, path, None).await["data"].take();
            (job["status"] == wanted).then_some(job)
        })
        .await
    }
}

/// The processes that work for a run of this controller's.
fn at_work(controller: u32) -> usize {
    let mark = format!("SIGNET_JOB_DIR=/dev/shm/signet-job-{controller}-");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = all.filter_map(|entry| std::fs::read(entry.path().join("environ")).ok());
    environments.filter(|text| text.split(|b| *b == 0).any(|one| one.starts_with(mark.as_bytes()))).count()
}

async fn nothing_of_a_killed_controller_goes_on(pair: Pair) {
    let parts = pair.parts().await;
    let dir = tempfile::tempdir().unwrap();
    let (data, ansible) = (dir.path().join("data"), hanging_ansible(dir.path()));
    let mut first = Program::start(&parts, &data, &ansible);
    let made = first.ask(Method::POST, "/api/v1/jobs", Some(&body("h"))).await;
    let path = format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap());
    let killed = first.child.id();
    eventually(PATIENCE, "Ansible and its child to run", async || (at_work(killed) == 2).then_some(())).await;
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert_eq!(at_work(killed), 2, "they outlive it, so that there is something to end");
    let second = Program::start(&parts, &data, &ansible);
    eventually(PATIENCE, "nothing to be at work", async || (at_work(killed) == 0).then_some(())).await;
    let job = second.until(&path, LEASE, "FAILED").await;
    let why = job["targets"][0]["reason"].as_str().unwrap();
    assert!(why.contains("the controller that ran the job is gone"), "{why}");
    let again = second.ask(Method::POST, &format!("{path}/retry"), Some(&json!({}))).await;
    let again = format!("/api/v1/jobs/{}", again["data"]["job_id"].as_str().unwrap());
    second.until(&again, PATIENCE, "RUNNING").await;
    second.ask(Method::POST, &format!("{again}/cancel"), Some(&json!({}))).await;
    second.until(&again, PATIENCE, "CANCELLED").await;
    assert_eq!(at_work(second.child.id()), 0);
    drop(second);
}
