//! Two controllers on one database and one broker, and requests that meet. Only a server's database is shared.

use reqwest::Method;
use serde_json::json;
use signet_testkit::{Pair, eventually};

use super::support::TestApp;
use super::support::fake_agent::{FakeAgent, exited};
use super::{PATIENCE, ask_node, target_in, task};

async fn two() -> (TestApp, TestApp) {
    let first = TestApp::start(Pair::MariadbRabbitmq).await;
    let second = first.beside().await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_the_same_key_is_one_task_at_either_controller() {
    let (first, second) = two().await;
    let mut agent = FakeAgent::enrol(&first, "h1", "web").await;
    let body = json!({"target_type": "node", "target": "h1", "command": "true"});
    let ask = async |app: &TestApp, body: &serde_json::Value| {
        let request = app.request(Method::POST, "/api/commands").header("idempotency-key", "once");
        TestApp::send(request.json(body)).await
    };
    let (one, other) = tokio::join!(ask(&first, &body), ask(&second, &body));
    let (one, other) = (one.expect(201), other.expect(201));
    assert_eq!(one["task_id"], other["task_id"]);
    let mut changed = body.clone();
    changed["command"] = json!("false");
    assert_eq!(ask(&second, &changed).await.status.as_u16(), 400);
    let id = one["task_id"].as_str().unwrap();
    agent.run_next(exited(0, "", "")).await;
    target_in(&second, id, "h1", "succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_one_takes_over_what_the_other_did() {
    let (first, second) = two().await;
    let mut agent = FakeAgent::enrol(&first, "h1", "web").await;
    let mut away = FakeAgent::new(&first, "h2", "web").await;
    away.hello(&first).await;
    away.consume().await;
    let (running, waiting) = (ask_node(&first, "h1").await, ask_node(&first, "h2").await);
    let command = agent.next_command().await;
    agent.accepted(&command.jti).await;
    target_in(&second, &running, "h1", "accepted").await;
    // The one that swept and took in goes away.
    first.running.app.stop.cancel();
    drop(first);
    // Its reports, its heartbeats and its sweep are the other's now.
    agent.result(&command.jti, exited(4, "", "")).await;
    assert_eq!(target_in(&second, &running, "h1", "failed").await["exit_code"], 4);
    away.come_online(&second).await;
    away.run_next(exited(0, "", "")).await;
    target_in(&second, &waiting, "h2", "succeeded").await;
    let after = ask_node(&second, "h1").await;
    agent.run_next(exited(0, "", "")).await;
    target_in(&second, &after, "h1", "succeeded").await;
    assert_eq!(task(&second, &after).await["status"], "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_host_that_enrols_at_one_is_heard_by_the_other() {
    let (first, second) = two().await;
    for (at, app) in [&first, &second].into_iter().enumerate() {
        // One of the two takes in all heartbeats; whoever enrolled the host, it must know the key at once.
        let mut agent = FakeAgent::enrol(app, &format!("h{at}"), "web").await;
        let id = ask_node(app, &format!("h{at}")).await;
        agent.run_next(exited(0, "", "")).await;
        target_in(&first, &id, &format!("h{at}"), "succeeded").await;
    }
}

/// A command that is asked for while a host's key is taken away comes before that, and ends with it, or after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_command_waits_for_who_changes_its_host() {
    let app = TestApp::start(Pair::MariadbRabbitmq).await;
    let _agent = FakeAgent::enrol(&app, "h1", "web").await;
    let all = json!({"target_type": "all", "command": "true"});
    let group = json!({"target_type": "group", "target": "web", "command": "true"});
    let node = json!({"target_type": "node", "target": "h1", "command": "true"});
    let label = json!({"target_type": "label", "target": "rack=7", "command": "true"});
    let labelled = app.request(Method::PATCH, "/api/servers/h1").json(&json!({"labels": {"rack": "7"}}));
    TestApp::send(labelled).await.expect(200);
    for body in [all, group, node, label] {
        let mut tx = app.db().begin().await.unwrap();
        let revoke = "UPDATE servers SET agent_id = NULL WHERE hostname = 'h1'";
        tx.run(signet_controller::store::Statement::same(revoke).query()).await.unwrap();
        let asking = app.post("/api/commands", &body);
        tokio::pin!(asking);
        // It may not answer before the other transaction is over; if it has not even come so far, nothing is lost.
        let early = tokio::time::timeout(std::time::Duration::from_millis(500), &mut asking).await;
        assert!(early.is_err(), "{body} did not wait");
        tx.commit().await.unwrap();
        let id = asking.await.expect(201)["task_id"].as_str().unwrap().to_owned();
        assert_eq!(target_in(&app, &id, "h1", "rejected").await["reason"], "no_agent");
        app.change("UPDATE servers SET agent_id = (SELECT agent_id FROM agents)").await;
    }
    eventually(PATIENCE, "nothing to be left", async || {
        (app.number("SELECT COUNT(*) FROM deliveries WHERE state = 'waiting'").await == 0).then_some(())
    })
    .await;
}
