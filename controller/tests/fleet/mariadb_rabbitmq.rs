//! What three agents do.

use serde_json::{Value, json};
use signet_testkit::{Pair, eventually};
use tempfile::TempDir;

use super::agent::Agent;
use super::support::{PATIENCE, TestApp};

struct Fleet {
    app: TestApp,
    agents: Vec<Agent>,
    root: TempDir,
}

async fn fleet() -> Fleet {
    let app = TestApp::start(Pair::MariadbRabbitmq).await;
    let root = tempfile::tempdir().unwrap();
    let (a, b, c) = tokio::join!(
        Agent::start(&app, root.path(), "a", "web"),
        Agent::start(&app, root.path(), "b", "web"),
        Agent::start(&app, root.path(), "c", "db"),
    );
    Fleet { app, agents: vec![a, b, c], root }
}

impl Fleet {
    async fn ask(&self, body: Value) -> String {
        let task = self.app.post("/api/commands", &body).await.expect(201);
        task["task_id"].as_str().unwrap().to_owned()
    }

    async fn results(&self, id: &str, count: usize) -> Vec<Value> {
        eventually(PATIENCE, &format!("{count} results of {id}"), async || {
            let results = self.app.get(&format!("/api/tasks/{id}/results?encoding=base64")).await.expect(200);
            let results = results.as_array().unwrap().clone();
            (results.len() == count).then_some(results)
        })
        .await
    }

    async fn on(&self, host: &str, mut body: Value) -> Value {
        body["target_type"] = json!("node");
        body["target"] = json!(host);
        let id = self.ask(body).await;
        self.results(&id, 1).await.remove(0)
    }

    async fn state(&self, id: &str, host: &str, state: &str) -> Value {
        eventually(PATIENCE, &format!("{host} to be {state}"), async || {
            let detail = self.app.get(&format!("/api/tasks/{id}")).await.expect(200);
            let all = detail["targets"].as_array().unwrap().clone();
            all.into_iter().find(|t| t["hostname"] == host && t["state"] == state)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_group_and_all_answer() {
    let fleet = fleet().await;
    let one = fleet.on("b", json!({"command": "echo out; echo err >&2; exit 4"})).await;
    assert_eq!(
        (&one["exit_code"], &one["stdout"], &one["stderr"]),
        (&json!(4), &json!("out\n"), &json!("err\n"))
    );
    let group = fleet.ask(json!({"target_type": "group", "target": "web", "command": "echo $((6*7))"})).await;
    let results = fleet.results(&group, 2).await;
    assert!(results.iter().all(|r| r["stdout"] == "42\n" && r["exit_code"] == 0), "{results:?}");
    let all = fleet.ask(json!({"target_type": "all", "command": "true"})).await;
    let mut hosts: Vec<String> =
        fleet.results(&all, 3).await.iter().map(|r| r["hostname"].as_str().unwrap().to_owned()).collect();
    hosts.sort();
    assert_eq!(hosts, ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_bytes_stdin_and_environment() {
    let fleet = fleet().await;
    let user =
        fleet.on("a", json!({"command": "id -un; echo $HOME; pwd", "user": "nobody", "cwd": "/tmp"})).await;
    assert_eq!(user["stdout"], "nobody\n/nonexistent\n/tmp\n", "{user}");
    let none = fleet.on("a", json!({"command": "true", "user": "no-such-user"})).await;
    assert_eq!((&none["state"], &none["exit_code"]), (&json!("rejected"), &json!(-1)));
    assert!(none["stderr"].as_str().unwrap().contains("no-such-user"), "{none}");
    let bytes = fleet.on("b", json!({"argv": ["printf", "\\377\\000\\033"]})).await;
    assert_eq!(bytes["stdout_base64"], "/wAb", "{bytes}");
    let given = fleet
        .on("c", json!({"command": "cat; echo $WHO", "stdin": "in\n", "env": {"WHO": "me & you"}}))
        .await;
    assert_eq!(given["stdout"], "in\nme & you\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_are_cut_and_counted() {
    let fleet = fleet().await;
    let big =
        fleet.on("a", json!({"command": "head -c 104857600 /dev/zero | tr '\\0' x", "timeout": 120})).await;
    assert_eq!((&big["exit_code"], &big["stdout_bytes"]), (&json!(0), &json!(104_857_600)));
    assert_eq!(big["stdout"].as_str().unwrap().len(), 1024 * 1024);
    assert_eq!(
        (&big["stdout_omitted_from"], &big["stdout_omitted_bytes"]),
        (&json!(524_288), &json!(103_809_024))
    );
    let id = big["task_id"].as_str().unwrap();
    let kept = fleet.app.get(&format!("/api/tasks/{id}/targets/a/stdout")).await;
    assert_eq!(kept.text.len(), 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_out_ends_the_whole_tree() {
    let fleet = fleet().await;
    let pid = fleet.root.path().join("grandchild");
    let command = format!("setsid sh -c 'echo $$ > {0}; exec sleep 1000' & sleep 1000", pid.display());
    let late = fleet.on("a", json!({"command": command, "timeout": 1})).await;
    assert_eq!((&late["state"], &late["exit_code"]), (&json!("timed_out"), &json!(-2)));
    assert!(late["stderr"].as_str().unwrap().ends_with("\nCommand timed out"));
    let grandchild = std::fs::read_to_string(&pid).unwrap().trim().to_owned();
    let process = std::path::Path::new("/proc").join(&grandchild);
    eventually(PATIENCE, "the grandchild to be gone", async || (!process.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancels_reach_what_runs_what_waits_and_what_was_never_sent() {
    let mut fleet = fleet().await;
    let sleeping = json!({"target_type": "node", "target": "a", "command": "sleep 1000", "timeout": 2000});
    let mut running = Vec::new();
    // As many as an agent runs at once, and then one more: commands to one host have no order among themselves.
    for _ in 0..8 {
        running.push(fleet.ask(sleeping.clone()).await);
    }
    for id in &running {
        fleet.state(id, "a", "running").await;
    }
    let queued = fleet.ask(sleeping).await;
    fleet.state(&queued, "a", "accepted").await;
    // First the one that waits: the others' ends would give it a slot.
    fleet.app.post(&format!("/api/tasks/{queued}/cancel"), &json!({})).await.expect(200);
    let ended = fleet.state(&queued, "a", "cancelled").await;
    assert_eq!(ended["started_at"], Value::Null, "{ended}");
    for id in &running {
        fleet.app.post(&format!("/api/tasks/{id}/cancel"), &json!({})).await.expect(200);
    }
    for id in &running {
        fleet.state(id, "a", "cancelled").await;
    }
    fleet.agents[2].stop().await;
    eventually(PATIENCE, "c to be offline", async || {
        let server = fleet.app.get("/api/servers/c").await.expect(200);
        (server["status"] == "offline").then_some(())
    })
    .await;
    let unsent =
        fleet.ask(json!({"target_type": "node", "target": "c", "command": "touch /nonexistent/x"})).await;
    fleet.app.post(&format!("/api/tasks/{unsent}/cancel"), &json!({})).await.expect(200);
    fleet.state(&unsent, "c", "cancelled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_reports_what_it_interrupted_and_runs_what_it_had_accepted() {
    let mut fleet = fleet().await;
    let marks = fleet.root.path().join("marks");
    let command = |n: usize, then: &str| {
        let command = format!("echo {n} >> {}; {then}", marks.display());
        json!({"target_type": "node", "target": "a", "command": command, "timeout": 600})
    };
    // As many as an agent runs at once, all still at work when it is killed, and then one more: commands to one host
    // have no order among themselves.
    let mut tasks = Vec::new();
    for n in 0..8 {
        tasks.push(fleet.ask(command(n, "sleep 300")).await);
    }
    for id in &tasks {
        fleet.state(id, "a", "running").await;
    }
    let queued = fleet.ask(command(8, "true")).await;
    fleet.state(&queued, "a", "accepted").await;
    fleet.agents[0].kill();
    fleet.agents[0].spawn();
    for id in &tasks {
        let ended = fleet.state(id, "a", "interrupted").await;
        assert_eq!(ended["exit_code"], -1);
    }
    fleet.state(&queued, "a", "succeeded").await;
    let mut started: Vec<String> =
        std::fs::read_to_string(&marks).unwrap().lines().map(str::to_owned).collect();
    started.sort();
    assert_eq!(started, ["0", "1", "2", "3", "4", "5", "6", "7", "8"], "each was started exactly once");
}
