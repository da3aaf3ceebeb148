//! The first command of `signet up`: through the API and the queue to its own agent, and back.

use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;
use signet_common::bus::{Bus, Queue};
use signet_common::{AgentId, Hostname, Jti};
use ureq::http::Method;

use crate::api::{Switch, Task};
use crate::client::{Client, parsed, part};
use crate::limits::{SELF_TEST_LOOK, SELF_TEST_MAX};

/// Asks the host for its kernel, and waits for its answer.
///
/// # Errors
/// Why there is none; everything else may still work.
pub(crate) async fn ask(
    client: &Client,
    bus: &dyn Bus,
    host: &Hostname,
    agent: &AgentId,
) -> anyhow::Result<String> {
    let begun = Instant::now();
    // Its queue is there once this start's hello was answered. A command before that would have to be sent again.
    let queue = Queue::Agent(agent.clone());
    while bus.depth(&queue).await?.is_none() {
        if begun.elapsed() > SELF_TEST_MAX {
            bail!("the own agent has not been let in");
        }
        tokio::time::sleep(SELF_TEST_LOOK).await;
    }
    let (client, host) = (client.clone(), host.clone());
    tokio::task::spawn_blocking(move || command(&client, &host, begun)).await?
}

fn command(client: &Client, host: &Hostname, begun: Instant) -> anyhow::Result<String> {
    let switch: Switch = parsed(&client.get("/api/dispatch")?)?;
    if switch.paused {
        bail!("dispatch is paused ({})", switch.reason.unwrap_or_default());
    }
    let server = client.get(&format!("/api/servers/{}", part(host.as_str())))?;
    if server["hold"] == "set_aside" {
        bail!("this host is set aside: {}", server["hold_reason"].as_str().unwrap_or_default());
    }
    let body = json!({
        "target_type": "node", "target": host.as_str(), "command": "uname -sr",
        "expires_in": SELF_TEST_MAX.as_secs(),
    });
    let key = Jti::generate().to_string();
    let answer = client.send(&Method::POST, "/api/commands", &[("idempotency-key", &key)], Some(&body))?;
    let task: Task = parsed(&answer)?;
    if task.status == "awaiting_approval" {
        client.send(&Method::POST, &format!("/api/tasks/{}/cancel", part(&task.task_id)), &[], None)?;
        bail!("no first command was run: what runs here needs the approval of others");
    }
    loop {
        let results = client.get(&format!("/api/tasks/{}/results", part(&task.task_id)))?;
        if let Some(result) = results.get(0) {
            let text = |name: &str| result[name].as_str().unwrap_or_default().trim().to_owned();
            return match text("state").as_str() {
                "succeeded" => Ok(text("stdout")),
                _ => Err(anyhow!("{}", text("stderr"))).context("the first command was not run"),
            };
        }
        if begun.elapsed() > SELF_TEST_MAX {
            bail!("the first command did not come back");
        }
        std::thread::sleep(SELF_TEST_LOOK);
    }
}
