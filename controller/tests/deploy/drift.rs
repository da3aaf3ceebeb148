//! How deployed paths stand, as agents tell it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use signet_common::deploy::Standing;
use signet_testkit::{Pair, eventually, on_both_pairs};

use crate::leases::asked;
use crate::support::fake_agent::{FakeAgent, exited};
use crate::support::{PATIENCE, TestApp};

on_both_pairs!(what_differs_is_shown);

fn standing(path: &str, commit: Option<char>, edited: bool) -> Standing {
    let id = |c: char| c.to_string().repeat(40).parse().unwrap();
    Standing { path: path.parse().unwrap(), deployed: id('a'), commit: commit.map(id), edited }
}

/// Where the rows of a list are, page by page.
async fn listed(app: &TestApp, query: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = Some(format!("/api/deployments?limit=2{query}"));
    while let Some(path) = next {
        let answer = app.get(&path).await;
        let link = answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link.map(|link| link[1..].split('>').next().unwrap().to_owned());
        let rows = answer.expect(200);
        let at =
            |row: &Value| format!("{} {}", row["hostname"].as_str().unwrap(), row["path"].as_str().unwrap());
        found.extend(rows.as_array().unwrap().iter().map(at));
    }
    found.sort();
    found
}

async fn what_differs_is_shown(pair: Pair) {
    let app = TestApp::start(pair).await;
    let (mut h1, mut h2) =
        (FakeAgent::enrol(&app, "h1", "web").await, FakeAgent::enrol(&app, "h2", "db").await);
    let first = vec![standing("/srv/a", Some('a'), false), standing("/srv/b", Some('b'), false)];
    h1.heartbeat_with(|beat| beat.deploys.clone_from(&first)).await;
    let second = vec![standing("/srv/a", Some('a'), true), standing("/srv/c", None, false)];
    h2.heartbeat_with(|beat| beat.deploys = second).await;
    let all = ["h1 /srv/a", "h1 /srv/b", "h2 /srv/a", "h2 /srv/c"];
    eventually(PATIENCE, "all to be there", async || (listed(&app, "").await == all).then_some(())).await;
    for (query, wanted) in [
        ("&drifted=true", &["h1 /srv/b", "h2 /srv/a", "h2 /srv/c"][..]),
        ("&drifted=false", &["h1 /srv/a"]),
        ("&hostname=h2&drifted=true", &["h2 /srv/a", "h2 /srv/c"]),
        ("&group=web", &["h1 /srv/a", "h1 /srv/b"]),
        ("&path=/srv/a", &["h1 /srv/a", "h2 /srv/a"]),
        ("&path=/srv", &[]),
    ] {
        assert_eq!(listed(&app, query).await, wanted, "{query}");
    }
    app.get("/api/deployments?cursor=x").await.expect(400);
    app.get("/api/deployments?limit=0").await.expect(400);
    for _ in 0..2 {
        let to_h1 = json!({ "git_repo": "https://h/x.git", "git_branch": "0".repeat(40), "dest_path": "/srv/b",
            "targets": [{ "host": "h1" }] });
        let path = asked(&app, &to_h1).await;
        let deploy = h1.next_deploy().await;
        h1.accepted(&deploy.jti).await;
        h1.result(&deploy.jti, exited(0, "", "")).await;
        app.eventually(&path, |job| job["data"]["status"] == "SUCCESS").await;
    }
    let rows = app.get("/api/deployments?drifted=true").await.expect(200);
    let by_path: BTreeMap<&str, &Value> =
        rows.as_array().unwrap().iter().map(|row| (row["path"].as_str().unwrap(), row)).collect();
    let commit = |c: &str| json!(c.repeat(40));
    assert_eq!((&by_path["/srv/b"]["commit"], &by_path["/srv/b"]["deployed"]), (&commit("b"), &commit("a")));
    assert_eq!((&by_path["/srv/a"]["edited"], &by_path["/srv/a"]["drifted"]), (&json!(true), &json!(true)));
    assert_eq!((&by_path["/srv/b"]["job_id"], &by_path["/srv/b"]["wanted"]), (&json!("job_2"), &commit("0")));
    assert_eq!(by_path["/srv/a"]["job_id"], Value::Null, "that is of another host");
    assert_eq!((&by_path["/srv/c"]["commit"], &by_path["/srv/c"]["job_id"]), (&Value::Null, &Value::Null));
    assert_eq!(app.get("/api/servers/h1").await.expect(200)["drifted"], json!(["/srv/b"]));

    // What says the same as before is not written again.
    app.change("UPDATE deploy_standings SET path = '/untouched' WHERE drifted = 0").await;
    h1.heartbeat_with(|beat| beat.deploys = first).await;
    h2.heartbeat_with(|beat| beat.deploys = vec![standing("/srv/a", Some('a'), false)]).await;
    let wanted = ["h1 /srv/b", "h1 /untouched", "h2 /srv/a"];
    eventually(PATIENCE, "the news", async || (listed(&app, "").await == wanted).then_some(())).await;
    // With the host goes what was known of it.
    app.delete("/api/servers/h1").await;
    assert_eq!(listed(&app, "").await, ["h2 /srv/a"]);
    h2.heartbeat().await;
    eventually(PATIENCE, "nothing to be left", async || {
        (app.number("SELECT COUNT(*) FROM deploy_standings").await == 0).then_some(())
    })
    .await;
}
