//! What is held, and what is not.

use serde_json::{Value, json};
use signet_testkit::{Pair, eventually, on_both_pairs};

use super::{World, agent, on, rule};
use crate::support::PATIENCE;
use crate::support::fake_agent::exited;

on_both_pairs!(rules_hold_what_they_name, what_can_not_be_held_is_refused_at_once);

async fn rules_hold_what_they_name(pair: Pair) {
    let world = World::new(pair, 1).await;
    let app = &world.app;
    let mut web = agent(app, "web1", "web").await;
    app.post("/api/servers", &json!({ "hostname": "bare", "ip": "10.0.0.1", "group": "bare" }))
        .await
        .expect(201);
    let ask = async |kind: &str, target: &str| -> Value {
        let body = json!({ "target_type": kind, "target": target, "command": "true" });
        let made = world.alice.post(app, "/api/commands", &body).await.expect(201);
        made.get("approval").map_or(Value::Null, |approval| approval["needed"].clone())
    };
    assert_eq!(ask("group", "web").await, Value::Null);
    web.run_next(exited(0, "", "")).await;
    // However a host of the group is targeted.
    for (kind, target) in [("group", "prod"), ("node", "prod1"), ("all", "")] {
        assert_eq!(ask(kind, target).await, json!(1), "{kind}");
    }
    let all = rule(app, json!({ "target": "all", "approvals": 3, "expires_in": 60 })).await;
    assert_eq!(ask("all", "").await, json!(3), "the most counts");
    assert_eq!(ask("group", "prod").await, json!(1));
    assert_eq!(ask("group", "web").await, Value::Null, "not all hosts");
    web.run_next(exited(0, "", "")).await;
    rule(app, json!({ "target": { "group": "web" }, "approvals": 2, "kinds": ["deploy"] })).await;
    assert_eq!(ask("node", "web1").await, Value::Null, "another kind");
    rule(app, json!({ "target": { "group": "bare" }, "approvals": 2 })).await;
    assert_eq!(ask("node", "bare").await, Value::Null, "nothing will run there");

    for (field, body) in [
        ("target", json!({ "target": "some", "approvals": 1 })),
        ("target", json!({ "target": { "group": "" }, "approvals": 1 })),
        ("approvals", json!({ "target": "all", "approvals": 0 })),
        ("approvals", json!({ "target": "all", "approvals": 11 })),
        ("expires_in", json!({ "target": "all", "approvals": 1, "expires_in": 0 })),
        ("expires_in", json!({ "target": "all", "approvals": 1, "expires_in": 604_801 })),
        ("kinds", json!({ "target": "all", "approvals": 1, "kinds": [] })),
        ("kinds", json!({ "target": "all", "approvals": 1, "kinds": ["dance"] })),
        ("not known: kind;", json!({ "target": "all", "approvals": 1, "kind": ["deploy"] })),
        ("not known: target.grp;", json!({ "target": { "group": "web", "grp": "x" }, "approvals": 1 })),
    ] {
        let answer = app.post("/api/approval-rules", &body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text.contains(field), "{body}: {}", answer.text);
    }
    let listed = app.get("/api/approval-rules").await.expect(200);
    assert_eq!((listed.as_array().unwrap().len(), &listed[1]["target"]), (4, &json!("all")));
    let path = format!("/api/approval-rules/{}", all["id"].as_str().unwrap());
    assert_eq!(app.delete(&path).await.status, 204);
    assert_eq!(app.delete(&path).await.status, 404);
    let waiting = app.get("/api/approvals?state=awaiting&limit=2").await;
    let next = waiting.headers["link"].to_str().unwrap().to_owned();
    let next = next.split(['<', '>']).nth(1).unwrap();
    let waiting = waiting.expect(200);
    assert_eq!(
        (&waiting[0]["needed"], &waiting[1]["needed"]),
        (&json!(1), &json!(3)),
        "held although the rule is gone"
    );
    let rest = app.get(next).await.expect(200);
    assert_eq!(rest.as_array().unwrap().len(), 2);
}

async fn what_can_not_be_held_is_refused_at_once(pair: Pair) {
    let world = World::new(pair, 10).await;
    // Each of these characters takes six in JSON.
    let large = on("prod", json!({ "stdin": "\u{1}".repeat(120_000) }));
    let answer = world.alice.post(&world.app, "/api/commands", &large).await;
    assert_eq!(answer.status, 413, "{}", answer.text);
    assert_eq!(world.app.number("SELECT COUNT(*) FROM tasks").await, 0);
    world.asked_with(json!({ "stdin": "\u{1}".repeat(40_000) })).await;
    // An agent that does not know what an approval is would run it without looking.
    let mut old = agent(&world.app, "old1", "old").await;
    old.heartbeat_with(|h| h.features.retain(|f| f != "approval")).await;
    rule(&world.app, json!({ "target": { "group": "old" }, "approvals": 1 })).await;
    eventually(PATIENCE, "the heartbeat", async || {
        let old = "SELECT COUNT(*) FROM heartbeats WHERE features NOT LIKE '%approval%'";
        Some(world.app.number(old).await).filter(|count| *count == 1)
    })
    .await;
    let made = world.alice.post(&world.app, "/api/commands", &on("old", json!({}))).await.expect(201);
    assert_eq!(made["status"], "rejected", "{made}");
}
