//! Jobs for more hosts than one statement asks for.

use serde_json::{Value, json};
use signet_common::TaskId;
use signet_common::seal::SealingKey;
use signet_controller::deploy::DeployOutcomes;
use signet_controller::dispatch::{Happened, Outcomes as _, What};
use signet_controller::store::{self, Statement};
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::leases::asked;
use crate::support::fake_agent::exited;
use crate::support::watched::Statements;
use crate::support::{PATIENCE, TestApp};

on_both_pairs!(
    many_hosts_keep_their_order,
    a_thousand_hosts_take_few_statements,
    a_job_that_cannot_be_read_hides_no_other,
);

async fn many_hosts_keep_their_order(pair: Pair) {
    let app = TestApp::start(pair).await;
    let names: Vec<String> = (0..300).rev().map(|n| format!("h{n:03}")).collect();
    for (n, name) in names.iter().enumerate() {
        let server =
            json!({ "hostname": name, "ip": "192.0.2.1", "group": if n < 20 { "db" } else { "web" } });
        app.post("/api/servers", &server).await.expect(201);
    }
    let job = |targets: Vec<Value>| json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": "/srv/a", "targets": targets });
    let order = async |path: &str| -> Vec<String> {
        let shown = app.get(path).await.expect(200);
        let targets = shown["data"]["targets"].as_array().unwrap();
        targets.iter().map(|target| target["host"].as_str().unwrap().to_owned()).collect()
    };
    let path = asked(&app, &job(names.iter().map(|name| json!({ "host": name })).collect())).await;
    assert_eq!(order(&path).await, names);
    // Each once, and a group by hostname.
    let some = job(vec![json!({ "host": "h285" }), json!({ "group": "db" }), json!({ "host": "h001" })]);
    let path = asked(&app, &some).await;
    let mut wanted: Vec<&str> =
        names[..20].iter().rev().map(String::as_str).filter(|name| *name != "h285").collect();
    wanted.insert(0, "h285");
    wanted.push("h001");
    assert_eq!(order(&path).await, wanted);
    // All that is wrong is named.
    let mut targets: Vec<Value> = names.iter().map(|name| json!({ "host": name })).collect();
    targets[7] = json!({ "host": "nobody" });
    targets[299] = json!({ "group": "nothing" });
    let wrong = app.post("/api/v1/jobs", &job(targets)).await.expect(422);
    let fields: Vec<&String> = wrong["error"]["details"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["targets[7].auth", "targets[299].group"]);
}

const SERVERS: Statement =
    Statement::same("INSERT INTO servers (hostname, ip, grp, agent_id, created_at) VALUES {rows:5}");
const AGENTS: Statement = Statement::same(
    "INSERT INTO agents (agent_id, hostname, public_key, standing, sealing_key, created_at, updated_at) VALUES {rows:7}",
);

/// Enrolled hosts whose agents are away.
async fn enrolled(app: &TestApp, names: &[String]) {
    let key = SealingKey::generate().unwrap().public();
    let id = |name: &String| format!("{:0>40}", name.trim_start_matches('h'));
    let mut tx = app.db().begin().await.unwrap();
    for some in names.chunks(250) {
        let servers = some.iter().map(|name| -> [store::Value; 5] {
            [name.as_str().into(), "192.0.2.1".into(), "web".into(), id(name).into(), 0_i64.into()]
        });
        tx.run(SERVERS.query().rows(servers)).await.unwrap();
        let agents = some.iter().map(|name| -> [store::Value; 7] {
            let times: [store::Value; 2] = [0_i64.into(), 0_i64.into()];
            let [made, changed] = times;
            let key = key.as_str().into();
            [id(name).into(), name.as_str().into(), "x".into(), "accepted".into(), key, made, changed]
        });
        tx.run(AGENTS.query().rows(agents)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// A job that gives each host a message of its own, half of whose hosts succeed before it is cancelled: how many
/// statements write messages, take results in, and end the others.
async fn statements(app: &TestApp, seen: &Statements, hosts: &[String]) -> [usize; 3] {
    const TARGETS: [&str; 2] = ["INSERT INTO job_targets", "UPDATE job_targets"];
    let targets: Vec<Value> = hosts.iter().map(|host| json!({ "host": host })).collect();
    let body = json!({ "git_repo": "https://h.example.com/x", "git_branch": "b".repeat(40), "targets": targets,
        "dest_path": format!("/srv/{}", hosts.len()), "credential": { "kind": "https_token", "token": "t0ken" } });
    let path = asked(app, &body).await;
    let job = path.rsplit('/').next().unwrap();
    let sent = format!("{path}/logs");
    eventually(PATIENCE, "the deployment", async || {
        app.get(&sent).await.text.contains("TASK [git]").then_some(())
    })
    .await;
    let messages = seen.begun(&["INSERT INTO messages"]);
    let task: TaskId = job.parse().unwrap();
    let result = |host: &String| Happened {
        task_id: task.clone(),
        hostname: host.parse().unwrap(),
        live_seq: 1,
        what: What::Result(Box::new(exited(0, "", ""))),
    };
    let results: Vec<Happened> = hosts.iter().step_by(2).map(result).collect();
    let mut tx = app.db().begin().await.unwrap();
    DeployOutcomes.store(&mut tx, &results).await.unwrap();
    tx.commit().await.unwrap();
    let taken = seen.begun(&TARGETS);
    app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
    let over = app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    for (n, target) in over["data"]["targets"].as_array().unwrap().iter().enumerate() {
        let wanted = if n % 2 == 0 { "SUCCESS" } else { "CANCELLED" };
        assert_eq!((&target["status"], &target["host"]), (&json!(wanted), &json!(hosts[n])));
    }
    [messages, taken, seen.begun(&TARGETS)]
}

async fn a_thousand_hosts_take_few_statements(pair: Pair) {
    let seen = Statements::keep();
    let app = TestApp::start(pair).await;
    let names: Vec<String> = (0..1_000).map(|n| format!("h{n:04}")).collect();
    enrolled(&app, &names).await;
    let counts = statements(&app, &seen, &names).await;
    // One for each 256 rows, of which there are hundreds; and a transaction may be tried again.
    assert!(counts.iter().all(|count| (1..40).contains(count)), "{counts:?}");
}

async fn a_job_that_cannot_be_read_hides_no_other(pair: Pair) {
    let app = TestApp::start(pair).await;
    enrolled(&app, &["h1".into()]).await;
    for path in ["/srv/a", "/srv/b", "/srv/c"] {
        let body = json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": path,
            "targets": [{ "host": "h1" }] });
        asked(&app, &body).await;
    }
    app.change("UPDATE jobs SET options = '[' WHERE id = 2").await;
    let shown = app.get("/api/v1/jobs").await.expect(200)["data"].take();
    let ids: Vec<&Value> = shown["items"].as_array().unwrap().iter().map(|job| &job["job_id"]).collect();
    assert_eq!((ids, &shown["total"]), (vec![&json!("job_3"), &json!("job_1")], &json!(3)));
    // It has its place on its page.
    let shown = app.get("/api/v1/jobs?page=2&page_size=1").await.expect(200)["data"].take();
    assert_eq!((&shown["items"], &shown["total"]), (&json!([]), &json!(3)));
}
