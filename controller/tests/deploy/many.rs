//! Jobs for more hosts than one statement asks for.

use serde_json::{Value, json};
use signet_testkit::{Pair, on_both_pairs};

use crate::leases::asked;
use crate::support::TestApp;

on_both_pairs!(many_hosts_keep_their_order);

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
