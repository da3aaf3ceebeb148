//! A true agent with a broker user of its own.

use reqwest::Method;
use serde_json::{Value, json};
use signet_controller::settings::{BusSettings, Secret};
use signet_testkit::{Pair, Services, eventually};

use super::agent::Agent;
use super::support::{PATIENCE, TestApp};

async fn answers(app: &TestApp, word: &str) {
    let ask = json!({"target_type": "node", "target": "a", "command": format!("echo {word}")});
    let task = app.post("/api/commands", &ask).await.expect(201)["task_id"].as_str().unwrap().to_owned();
    let said = format!("{word}\n");
    app.eventually(&format!("/api/tasks/{task}/results"), |results| results[0]["stdout"] == said.as_str())
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_survives_the_loss_of_its_user_and_loses_it_with_its_key() {
    let app = TestApp::start_with(Pair::MariadbRabbitmq.parts().await, |settings| {
        let BusSettings::Amqp { management_url, .. } = &mut settings.bus else { panic!("no broker") };
        *management_url = Some(Secret::new(&Services::shared().management_url));
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let _agent = Agent::start(&app, root.path(), "a", "web").await;
    answers(&app, "one").await;
    let vhost = app.parts.vhost().unwrap();
    let id = app.get("/api/servers/a").await.expect(200)["agent_id"].as_str().unwrap().to_owned();
    let user = format!("/api/users/signet.agent.{id}");
    assert_eq!(vhost.api(Method::GET, &user, Value::Null).await["tags"], json!([]));
    // The broker lost its data: the agent is refused, says hello, and has a user again.
    vhost.api(Method::DELETE, &user, Value::Null).await;
    answers(&app, "two").await;
    assert!(vhost.api(Method::GET, &user, Value::Null).await["name"].is_string());
    app.post(&format!("/api/agents/{id}/revoke"), &json!({})).await.expect(200);
    eventually(PATIENCE, "the user to be gone", async || {
        let gone = vhost.api(Method::GET, &user, Value::Null).await["name"].is_null();
        gone.then_some(())
    })
    .await;
}
