//! Servers beyond the document: labels, changes, and what it means to delete one.

use reqwest::Method;
use serde_json::{Value, json};
use signet_common::PublicKey;
use signet_common::bus::Queue;
use signet_common::keyring::Keyring;
use signet_common::messages::Standing;
use signet_testkit::{Pair, on_both_pairs};

use crate::support::fake_agent::{FakeAgent, exited, opened};
use crate::support::{PATIENCE, TestApp};

on_both_pairs!(
    servers_are_found_by_label,
    what_is_no_server_is_refused,
    a_deleted_server_is_gone,
    a_second_claimant_waits,
    a_host_is_enrolled_by_hand
);

async fn add(app: &TestApp, hostname: &str, labels: Value) {
    let body = json!({ "hostname": hostname, "ip": "10.0.0.1", "labels": labels });
    app.post("/api/servers", &body).await.expect(201);
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|server| server["hostname"].as_str().unwrap()).collect()
}

async fn servers_are_found_by_label(pair: Pair) {
    let app = TestApp::start(pair).await;
    add(&app, "c", json!({ "zone": "eu", "tier": "1" })).await;
    add(&app, "a", json!({ "zone": "eu" })).await;
    add(&app, "b", json!({})).await;
    let all = app.get("/api/servers").await.expect(200);
    assert_eq!(names(&all), ["a", "b", "c"]);
    assert_eq!(all[2]["labels"], json!({ "tier": "1", "zone": "eu" }));
    assert!(all[1].get("labels").is_none());
    assert_eq!(names(&app.get("/api/servers?label=zone=eu").await.expect(200)), ["a", "c"]);
    assert_eq!(names(&app.get("/api/servers?label=zone=us").await.expect(200)), [""; 0]);
    assert_eq!(app.get("/api/servers?label=zone").await.status, 400);

    let body = json!({ "target_type": "label", "target": "zone=eu", "command": "true" });
    let task = app.post("/api/commands", &body).await.expect(201);
    let task = app.get(&format!("/api/tasks/{}", task["task_id"].as_str().unwrap())).await.expect(200);
    assert_eq!(names(&task["targets"]), ["a", "c"]);

    let change = json!({ "group": "db", "labels": { "zone": "us" } });
    let changed = TestApp::send(app.request(Method::PATCH, "/api/servers/a").json(&change)).await.expect(200);
    assert_eq!((&changed["group"], &changed["labels"]), (&json!("db"), &json!({ "zone": "us" })));
    assert_eq!(changed["ip"], "10.0.0.1", "what is absent stays");
    assert_eq!(names(&app.get("/api/servers?label=zone=us&group=db").await.expect(200)), ["a"]);
    for bad in
        [json!({ "": "x" }), json!({ "a b": "x" }), json!({ "a": " x" }), json!({ "a": "x".repeat(129) })]
    {
        let body = json!({ "hostname": "d", "ip": "10.0.0.1", "labels": bad });
        assert_eq!(app.post("/api/servers", &body).await.status, 400, "{body}");
    }
}

async fn what_is_no_server_is_refused(pair: Pair) {
    let app = TestApp::start(pair).await;
    let cases = [
        (json!({ "ip": "10.0.0.1" }), "hostname is required"),
        (json!({ "hostname": "a" }), "ip is required"),
        (json!({ "hostname": "a_b", "ip": "10.0.0.1" }), "hostname must "),
        (json!({ "hostname": "a", "ip": "10.0.0" }), "ip must "),
        (json!({ "hostname": "a", "ip": 10 }), "ip: "),
        (json!({ "hostname": "a", "ip": "10.0.0.1", "group": "" }), "group must "),
        (json!({ "hostname": "a", "ip": "10.0.0.1", "group": 1 }), "group: "),
    ];
    for (body, start) in cases {
        let detail = app.post("/api/servers", &body).await.expect(400)["detail"].take();
        assert!(detail.as_str().unwrap().starts_with(start), "{body}: {detail}");
    }
    let good = json!({ "hostname": "WEB-1.Example", "ip": "2001:db8::1", "group": null, "extra": [1] });
    let server = app.post("/api/servers", &good).await.expect(201);
    assert_eq!((&server["hostname"], &server["group"]), (&json!("web-1.example"), &json!("default")));
    // Compared without case, like names.
    app.post("/api/servers", &json!({ "hostname": "web-1.EXAMPLE", "ip": "10.0.0.1" })).await.expect(409);
    assert_eq!(app.get("/api/servers/WEB-1.example").await.expect(200)["ip"], "2001:db8::1");
    for unknown in ["nobody", "a_b"] {
        assert_eq!(app.get(&format!("/api/servers/{unknown}")).await.status, 404);
        assert_eq!(app.delete(&format!("/api/servers/{unknown}")).await.status, 404);
    }
}

async fn a_deleted_server_is_gone(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "server1", "web").await;
    let body = json!({ "target_type": "all", "command": "true" });
    app.post("/api/commands", &body).await.expect(201);
    agent.run_next(exited(0, "", "")).await;
    let open = app.post("/api/commands", &body).await.expect(201);
    agent.next_command().await;
    agent.leave();

    let answer = app.delete("/api/servers/server1").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    assert_eq!(app.get("/api/servers").await.expect(200), json!([]));
    assert_eq!(app.get("/api/client-keys/server1").await.status, 404);
    let queue = Queue::Agent(agent.id.clone());
    signet_testkit::eventually(PATIENCE, "its queue to be deleted", async || {
        app.bus.depth(&queue).await.unwrap().is_none().then_some(())
    })
    .await;
    // What was open there has an end, and the key counts no more.
    let path = format!("/api/tasks/{}", open["task_id"].as_str().unwrap());
    let task = app.get(&path).await.expect(200);
    assert_eq!(task["targets"][0]["state"], "lost", "{task}");
    assert_eq!(app.get("/api/tasks").await.expect(200).as_array().unwrap().len(), 2);
    let hello = agent.draft(&app).await;
    assert_eq!(agent.say(&app, &hello).await.status, 403);
    // The name is free for another key.
    FakeAgent::enrol(&app, "server1", "web").await;
}

async fn a_second_claimant_waits(pair: Pair) {
    let app = TestApp::start(pair).await;
    let first = FakeAgent::enrol(&app, "server1", "web").await;
    let mut second = FakeAgent::new(&app, "server1", "web").await;
    let welcome = second.hello(&app).await;
    assert_eq!((welcome.standing, welcome.broker), (Standing::Pending, None));
    let server = app.get("/api/servers/server1").await.expect(200);
    assert_eq!(server["agent_id"], first.id.as_str());
    assert_eq!(server["pending"], json!([second.key.public().id().as_str()]));
    let accept = format!("/api/agents/{}/accept", second.id);
    assert_eq!(app.post(&accept, &json!({})).await.expect(200)["standing"], "accepted");
    assert_eq!(second.hello(&app).await.standing, Standing::Accepted);
    let hello = first.draft(&app).await;
    assert_eq!(first.say(&app, &hello).await.status, 403, "the replaced key gets nothing new");
    // A hello counts once, and only with a nonce of ours.
    let hello = second.draft(&app).await;
    assert_eq!(second.say(&app, &hello).await.status, 200);
    assert_eq!(second.say(&app, &hello).await.status, 401);
    // Without a token, an unknown key learns nothing.
    let stranger = FakeAgent::new(&app, "stranger", "web").await;
    let mut hello = stranger.draft(&app).await;
    hello.join = None;
    assert_eq!(stranger.say(&app, &hello).await.status, 401);
    assert_eq!(app.get("/api/servers/stranger").await.status, 404);
}

/// Without any token: its key is put by an admin, and it believes the controller's because it was given that.
async fn a_host_is_enrolled_by_hand(pair: Pair) {
    let app = TestApp::start(pair).await;
    let answer = app.get("/api/agents/controller-key").await;
    assert_eq!((answer.status.as_u16(), answer.text.ends_with("-----END PUBLIC KEY-----\n")), (200, true));
    let given = PublicKey::from_pem(&answer.text).unwrap();
    let mut agent = FakeAgent::new(&app, "server1", "web").await;
    let body = json!({ "public_key_pem": agent.key.public().to_pem() });
    app.put("/api/client-keys/server1", &body).await.expect(200);
    let mut hello = agent.draft(&app).await;
    hello.join = None;
    let (chain, _) = opened(&agent.say(&app, &hello).await);
    assert_eq!(Keyring::trust_first(&chain[0], given.id()).unwrap().current(), &given);
    assert_eq!(agent.hello(&app).await.standing, Standing::Accepted);
    agent.consume().await;
    agent.come_online(&app).await;
}
