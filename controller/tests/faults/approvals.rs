//! The controller dies while the last approval lets a command go.

use serde_json::json;
use signet_common::fault::Point;
use signet_testkit::Pair;

use super::points::End;
use super::world::{Fault, World};

const PASSWORD: &str = "correct horse";

/// Its second transaction of that kind is the one that releases what the first one held.
async fn dies_at(point: Point) {
    let parts = Pair::MariadbRabbitmq.parts().await;
    let fault = Fault { point, nth: 2, stop: false };
    let mut world = World::start(parts.database_url(), parts.amqp_url().unwrap(), fault).await;
    let (client, host) = (world.client.clone(), world.host.clone());
    let rule = json!({"target": {"group": "default"}, "approvals": 1});
    client.say("POST", "/api/approval-rules", None, &rule).await;
    let bob = json!({"username": "bob", "email": "bob@example.com", "password": PASSWORD});
    let id = client.say("POST", "/api/v1/auth/register", None, &bob).await["data"]["id"].clone();
    let path = format!("/api/v1/users/{}", id.as_str().unwrap());
    client.say("PUT", &path, None, &json!({"role": "operator"})).await;
    let token = client.say("POST", "/api/v1/auth/login", None, &bob).await["data"]["token"].clone();

    let task = client.ask("held", &host.marking("held")).await;
    let path = format!("/api/approvals/{task}");
    let digest = client.say("GET", &path, None, &json!(null)).await["digest"].clone();
    let (body, path) = (json!({"digest": digest}), format!("{path}/approve"));
    // Said again until it was heard.
    let approve = client.say("POST", &path, token.as_str(), &body);
    let restart = async {
        world.dies(point).await;
        world.program(point).start(None);
    };
    let (approved, ()) = tokio::join!(approve, restart);
    assert_eq!(approved["state"], "approved");
    assert_eq!(approved["approvals"].as_array().unwrap().len(), 1, "{approved}");
    End::Ran.check("held", &client.result(&task).await, host.starts("held"));
}

mod mariadb_rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn before_a_release_is_committed() {
        dies_at(Point::ControllerBeforeCommit).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn after_a_release_was_committed() {
        dies_at(Point::ControllerAfterCommit).await;
    }
}
