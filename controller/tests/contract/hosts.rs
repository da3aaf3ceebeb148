//! Servers beyond the document: labels, changes, and what it means to delete one.

use reqwest::Method;
use serde_json::{Value, json};
use signet_common::Jti;
use signet_common::PublicKey;
use signet_common::bus::Queue;
use signet_common::chain::{ChainHash, Chained};
use signet_common::keyring::Keyring;
use signet_common::messages::{Event, Hello, Standing};
use signet_controller::store::Statement;
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::support::fake_agent::{FakeAgent, exited, opened};
use crate::support::{PATIENCE, TestApp};

on_both_pairs!(
    servers_are_found_by_label,
    what_is_no_server_is_refused,
    a_deleted_server_is_gone,
    a_second_claimant_waits,
    a_host_is_enrolled_by_hand,
    a_nonce_costs_nothing_and_counts_once,
    hellos_of_one_key_at_the_same_time_are_one_enrolment,
    what_no_group_is_called_is_refused,
    a_revoked_key_stays_revoked,
    the_list_shows_what_holds_a_host,
    orphans_come_page_by_page,
    what_a_journal_lost_is_shown,
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

async fn nonces_kept(app: &TestApp) -> i64 {
    let count = Statement::same("SELECT COUNT(*) AS number FROM nonces").query();
    app.running.app.store.first::<(i64,)>(count).await.unwrap().unwrap().0
}

async fn a_nonce_costs_nothing_and_counts_once(pair: Pair) {
    let app = TestApp::start(pair).await;
    let agent = FakeAgent::new(&app, "server1", "web").await;
    let hello = agent.draft(&app).await;
    agent.draft(&app).await;
    assert_eq!(nonces_kept(&app).await, 0, "only used ones are kept");
    // Anything that is not to the letter what was given out is refused before anything is written.
    let given = &hello.controller_nonce;
    let altered = |at: usize| {
        let other = if given.as_bytes()[at] == b'0' { "1" } else { "0" };
        format!("{}{other}{}", &given[..at], &given[at + 1..])
    };
    let last = given.len() - 1;
    for wrong in ["", "x", &given.to_uppercase(), &given[..last], &altered(3), &altered(20), &altered(last)] {
        let hello = Hello { controller_nonce: wrong.to_owned(), ..hello.clone() };
        let answer = agent.say(&app, &hello).await;
        assert_eq!(answer.status, 401, "{wrong}: {}", answer.text);
    }
    assert_eq!(nonces_kept(&app).await, 0);
    assert_eq!(agent.say(&app, &hello).await.status, 200);
    assert_eq!(nonces_kept(&app).await, 1);
    assert_eq!(agent.say(&app, &hello).await.status, 401, "once");
}

async fn hellos_of_one_key_at_the_same_time_are_one_enrolment(pair: Pair) {
    let app = TestApp::start(pair).await;
    let agent = FakeAgent::new(&app, "server1", "web").await;
    let again = FakeAgent::new(&app, "server1", "web").await;
    let mut hellos = Vec::new();
    for claimant in [&agent, &agent, &agent, &again, &again] {
        hellos.push((claimant, claimant.draft(&app).await));
    }
    let answers = hellos.iter().map(|(claimant, hello)| claimant.say(&app, hello));
    for answer in futures_util::future::join_all(answers).await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let agents = app.get("/api/agents").await.expect(200);
    let standings: Vec<&str> =
        agents.as_array().unwrap().iter().map(|a| a["standing"].as_str().unwrap()).collect();
    assert!(standings == ["accepted", "pending"] || standings == ["pending", "accepted"], "{agents}");
}

async fn what_no_group_is_called_is_refused(pair: Pair) {
    let app = TestApp::start(pair).await;
    for group in ["web ", " web", "we\nb", &"x".repeat(129)] {
        let agent = FakeAgent::new(&app, "server1", group).await;
        let hello = agent.draft(&app).await;
        let answer = agent.say(&app, &hello).await.expect(400);
        assert!(answer["detail"].as_str().unwrap().starts_with("group must"), "{answer}");
    }
    assert_eq!(app.get("/api/servers").await.expect(200), json!([]));
}

async fn a_revoked_key_stays_revoked(pair: Pair) {
    let app = TestApp::start(pair).await;
    let agent = FakeAgent::enrol(&app, "server1", "web").await;
    app.post(&format!("/api/agents/{}/revoke", agent.id), &json!({})).await.expect(200);
    let key = json!({ "public_key_pem": agent.key.public().to_pem() });
    for host in ["server1", "server2"] {
        let refused = app.put(&format!("/api/client-keys/{host}"), &key).await.expect(409);
        assert!(refused["detail"].as_str().unwrap().contains("revoked"), "{refused}");
    }
    assert_eq!(app.get("/api/servers/server2").await.status, 404, "what was refused leaves no trace");
}

async fn the_list_shows_what_holds_a_host(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "server1", "web").await;
    let plain = app.get("/api/servers").await.expect(200);
    assert!(plain[0].get("narrowed").is_none() && plain[0].get("set_aside").is_none(), "{plain}");
    agent.heartbeat_with(|beat| beat.narrowed = true).await;
    app.eventually("/api/servers", |list| list[0]["narrowed"] == true).await;
    // A journal that ends before what was taken in: the disk was rolled back.
    agent.report((0..2).map(|at| Event::Accepted { jti: Jti::generate(), at })).await;
    app.eventually("/api/servers/server1", |host| host["cursor"] == 2).await;
    agent.journal.truncate(1);
    agent.restart();
    assert_eq!(agent.hello(&app).await.standing, Standing::SetAside);
    let aside = app.get("/api/servers").await.expect(200);
    assert_eq!(aside[0]["set_aside"], true, "{aside}");
}

async fn orphans_come_page_by_page(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "server1", "web").await;
    agent.report((0..5).map(|at| Event::Accepted { jti: Jti::generate(), at })).await;
    let path = format!("/api/agents/{}/orphans", agent.id);
    let whole = eventually(PATIENCE, "the orphans to be kept", async || {
        let whole = app.get(&path).await.expect(200);
        (whole.as_array().unwrap().len() == 5).then_some(whole)
    })
    .await;
    let (mut next, mut paged) = (Some(format!("{path}?limit=2")), Vec::new());
    while let Some(page) = next {
        let answer = app.get(&page).await;
        let link = answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        let rows = answer.expect(200);
        assert!(rows.as_array().unwrap().len() <= 2);
        paged.extend(rows.as_array().unwrap().clone());
    }
    assert_eq!(Value::from(paged), whole);
    assert_eq!(app.get(&format!("{path}?cursor=x")).await.status, 400);
}

async fn what_a_journal_lost_is_shown(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agent = FakeAgent::enrol(&app, "server1", "web").await;
    let path = "/api/servers/server1";
    let whole = app.get(path).await.expect(200);
    assert_eq!((&whole["gaps"], &whole["queue"]), (&Value::Null, &json!({ "state": "there", "waiting": 0 })));
    agent.write((0..3).map(|at| Event::Accepted { jti: Jti::generate(), at }));
    let chain_at_to = agent.chain();
    let gap = Chained::next(ChainHash::default(), 3, Event::Gap { from: 1, to: 3, chain_at_to }).unwrap();
    agent.journal.clear();
    agent.journal.push(gap);
    agent.report_after(0).await;
    let gone = app.eventually(path, |host| host["gaps"] != Value::Null).await;
    assert_eq!((&gone["gaps"]["events"], gone["gaps"]["last_at"].is_string()), (&json!(3), true), "{gone}");
}
