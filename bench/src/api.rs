//! The HTTP API of document 002, which Signet and its peer both have.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::limits::{JOB_PATIENCE, LOOK_EVERY, PATIENCE, STORED_EVERY};

/// One controller's API.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
    token: Option<String>,
}

/// For whom a command is.
#[derive(Clone, Copy)]
pub(crate) enum Whom<'a> {
    Node(&'a str),
    All,
}

#[derive(Deserialize)]
struct Task {
    task_id: String,
}

/// How a command ended on one host.
#[derive(Deserialize)]
pub(crate) struct TaskResult {
    pub(crate) exit_code: i64,
}

/// What document 004 wraps its answers in.
#[derive(Deserialize)]
struct Good<T> {
    data: T,
}

#[derive(Deserialize)]
struct Made {
    job_id: String,
}

/// A job's detail.
#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    pub(crate) status: String,
    pub(crate) targets: Vec<JobTarget>,
}

/// How a deployment ended on one host.
#[derive(Debug, Deserialize)]
pub(crate) struct JobTarget {
    pub(crate) changed: Option<bool>,
    /// Empty unless it failed.
    #[serde(default)]
    pub(crate) reason: String,
}

#[derive(Deserialize)]
struct Server {
    status: String,
}

impl Api {
    /// `http://127.0.0.1:PORT`; without a token nobody is asked who he is.
    pub(crate) fn new(base: &str, token: Option<&str>) -> anyhow::Result<Self> {
        let client = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { client, base: base.to_owned(), token: token.map(str::to_owned) })
    }

    /// The same API over a connection of its own.
    pub(crate) fn apart(&self) -> anyhow::Result<Self> {
        Self::new(&self.base, self.token.as_deref())
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The client that it uses, for what is not in this list.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Posts `sh -c true` and gives the task's id.
    pub(crate) async fn post(&self, whom: Whom<'_>) -> anyhow::Result<String> {
        let (kind, name) = match whom {
            Whom::Node(name) => ("node", Some(name)),
            Whom::All => ("all", None),
        };
        let body =
            json!({"target_type": kind, "target": name, "command": "true", "timeout": 30, "user": null});
        let request = self.client.post(format!("{}/api/commands", self.base)).json(&body);
        Ok(self.ask::<Task>(request).await?.task_id)
    }

    /// What has come of a task so far.
    pub(crate) async fn results(&self, task: &str) -> anyhow::Result<Vec<TaskResult>> {
        self.ask(self.client.get(format!("{}/api/tasks/{task}/results", self.base))).await
    }

    /// Posts a command for one host and asks for its result until it is there.
    pub(crate) async fn post_and_see(&self, host: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let task = self.post(Whom::Node(host)).await?;
        loop {
            if let [result] = &self.results(&task).await?[..] {
                let took = begun.elapsed();
                ensure!(result.exit_code == 0, "task {task} ended with {}", result.exit_code);
                return Ok(took);
            }
            ensure!(begun.elapsed() < PATIENCE, "task {task} has no result");
            tokio::time::sleep(STORED_EVERY).await;
        }
    }

    /// Asks for a job and waits for its end in the same request; gives how long that took, and its detail.
    pub(crate) async fn deploy(&self, body: &Value) -> anyhow::Result<(Duration, Job)> {
        let request = self.client.post(format!("{}/api/v1/jobs?wait={}", self.base, JOB_PATIENCE.as_secs()));
        let begun = Instant::now();
        let made: Good<Made> = self.ask(request.timeout(JOB_PATIENCE + PATIENCE).json(body)).await?;
        let took = begun.elapsed();
        let path = format!("{}/api/v1/jobs/{}", self.base, made.data.job_id);
        Ok((took, self.ask::<Good<Job>>(self.client.get(path)).await?.data))
    }

    /// Waits until so many servers are online.
    pub(crate) async fn wait_online(&self, count: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let request = self.client.get(format!("{}/api/servers", self.base));
            let servers: Vec<Server> = self.ask(request).await?;
            let online = servers.iter().filter(|server| server.status == "online").count();
            if online >= count {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{online} of {count} servers are online");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).with_context(|| text)
    }
}
