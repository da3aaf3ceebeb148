//! The fleet's key is rotated while three agents work for two controllers.

use std::collections::BTreeMap;

use serde_json::json;
use signet_testkit::{Pair, eventually};

use super::agent::Agent;
use super::support::{PATIENCE, TestApp};

/// Asks for one command on every host, which leaves a line behind; gives its task.
async fn ask(app: &TestApp, marks: &std::path::Path) -> String {
    let body =
        json!({"target_type": "all", "command": format!("echo x >> {}", marks.display()), "timeout": 60});
    app.post("/api/commands", &body).await.expect(201)["task_id"].as_str().unwrap().to_owned()
}

async fn renew(app: &TestApp, how: &str, version: u64) {
    assert_eq!(app.post(&format!("/api/keys/{how}"), &json!({})).await.expect(201)["version"], version);
}

async fn all_hold(app: &TestApp, version: u64, hosts: u64) {
    app.eventually("/api/keys", |keys| {
        let holders = keys["hosts"].as_array().unwrap();
        holders.contains(&json!({"version": version, "hosts": hosts}))
    })
    .await;
}

/// How many messages the host did not believe for their key.
async fn refused(app: &TestApp, host: &str) -> u64 {
    let server = app.get(&format!("/api/servers/{host}")).await.expect(200);
    server["agent"]["refused"].as_object().unwrap().get("key").map_or(0, |n| n.as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_flow_through_rotations() {
    let first = TestApp::start(Pair::MariadbRabbitmq).await;
    let second = first.beside().await;
    let root = tempfile::tempdir().unwrap();
    let marks = root.path().join("marks");
    let (a, b, mut c) = tokio::join!(
        Agent::start(&first, root.path(), "a", "web"),
        Agent::start(&second, root.path(), "b", "web"),
        Agent::start(&first, root.path(), "c", "db"),
    );
    let mut tasks = Vec::new();
    let mut asked = 0;
    // Commands at both controllers all the time; a rotation at one or the other between.
    let mut flow = async |tasks: &mut Vec<String>, count: usize| {
        for _ in 0..count {
            let app = if asked % 2 == 0 { &first } else { &second };
            tasks.push(ask(app, &marks).await);
            asked += 1;
        }
    };
    flow(&mut tasks, 10).await;
    renew(&first, "rotate", 2).await;
    flow(&mut tasks, 10).await;
    all_hold(&second, 2, 3).await;
    flow(&mut tasks, 10).await;
    c.stop().await;
    eventually(PATIENCE, "c to be offline", async || {
        (first.get("/api/servers/c").await.expect(200)["status"] == "offline").then_some(())
    })
    .await;
    for (app, version) in [(&second, 3), (&first, 4)] {
        flow(&mut tasks, 5).await;
        renew(app, "rotate", version).await;
        flow(&mut tasks, 5).await;
        all_hold(&first, version, 2).await;
    }
    flow(&mut tasks, 5).await;
    c.spawn();
    c.online(&first).await;
    flow(&mut tasks, 5).await;
    all_hold(&second, 4, 3).await;

    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for id in &tasks {
        let task = first.eventually(&format!("/api/tasks/{id}"), |task| task["status"] == "done").await;
        for target in task["targets"].as_array().unwrap() {
            *states.entry(target["state"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert_eq!(
        states,
        BTreeMap::from([("succeeded".to_owned(), tasks.len() * 3)]),
        "none lost, none refused"
    );
    // Each ran once on each host.
    let ran = std::fs::read_to_string(&marks).unwrap().lines().count();
    assert_eq!(ran, tasks.len() * 3);
    for host in ["a", "b"] {
        assert_eq!(refused(&first, host).await, 0, "{host} believed every key");
    }
    drop((a, b));
}
