//! Who may deploy what to where: limits to groups of hosts and to repositories, on jobs of one's own and of others.

use serde_json::{Value, json};
use signet_common::PayloadType;
use signet_common::deploy::{CommitId, Deploy, Deployed};
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;
use crate::support::fake_agent::{FakeAgent, exited};
use crate::tokens::token;
use crate::visitor::Visitor;

on_both_pairs!(
    who_is_limited_to_a_group_deploys_there_alone,
    a_token_for_one_repository_touches_no_other,
    a_token_for_one_repository_sees_no_other
);

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OWN: &str = "https://git.example.com/team/app.git";
const OTHER: &str = "https://git.example.com/team/other.git";

fn body(repository: &str, targets: Value) -> Value {
    json!({ "git_repo": repository, "git_branch": COMMIT, "dest_path": "/srv/app", "targets": targets })
}

fn path(made: &Value) -> String {
    format!("/api/v1/jobs/{}", made["data"]["job_id"].as_str().unwrap())
}

/// A job of the administrator's, to its good end on these hosts.
async fn finished(app: &TestApp, repository: &str, agents: &mut [&mut FakeAgent]) -> String {
    let hosts: Vec<Value> = agents.iter().map(|agent| json!({ "host": agent.hostname })).collect();
    let job = path(&app.post("/api/v1/jobs", &body(repository, json!(hosts))).await.expect(202));
    for agent in agents {
        let deploy = loop {
            let message = agent.next().await;
            if message.kind() == PayloadType::Deploy {
                let deploy: Deploy = message.parse().unwrap().into_inner();
                if !agent.journal.iter().any(|known| known.event.jti() == Some(&deploy.jti)) {
                    break deploy;
                }
            }
        };
        let commit: CommitId = COMMIT.parse().unwrap();
        let mut result = exited(0, "", "");
        result.deploy = Some(Box::new(Deployed { commit: Some(commit), ..Deployed::default() }));
        agent.accepted(&deploy.jti).await;
        agent.result(&deploy.jti, result).await;
    }
    let over = app.eventually(&job, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["status"], "SUCCESS", "{over}");
    job
}

/// That all that can be done with a job that is over, and with one under way, is refused.
async fn untouchable(app: &TestApp, who: &Visitor, over: &str, under_way: &str, status: u16) {
    let before = app.number("SELECT COUNT(*) FROM jobs").await;
    for (path, body) in [
        (format!("{over}/retry"), json!({})),
        (format!("{over}/rollback"), json!({ "commit": COMMIT })),
        (format!("{under_way}/cancel"), json!({})),
    ] {
        let answer = who.post(app, &path, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    }
    assert_eq!(app.number("SELECT COUNT(*) FROM jobs").await, before, "nothing was made");
    assert_eq!(app.number("SELECT COUNT(*) FROM jobs WHERE cancel_at IS NOT NULL").await, 0);
}

/// The twin: each of it is done for who may.
async fn touchable(app: &TestApp, who: &Visitor, over: &str, under_way: &str) {
    who.post(app, &format!("{under_way}/cancel"), &json!({})).await.expect(202);
    app.eventually(under_way, |job| job["data"]["status"] == "CANCELLED").await;
    for (what, body) in [("retry", json!({})), ("rollback", json!({ "commit": COMMIT }))] {
        let made = path(&who.post(app, &format!("{over}/{what}"), &body).await.expect(202));
        who.post(app, &format!("{made}/cancel"), &json!({})).await.expect(202);
    }
}

async fn who_is_limited_to_a_group_deploys_there_alone(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut web = FakeAgent::enrol(&app, "web1", "web").await;
    let mut db = FakeAgent::enrol(&app, "db1", "db").await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    let asked = json!({ "name": "ci", "role": "operator", "surfaces": ["jobs"], "groups": ["web"] });
    let ci = token(&app, &alice, asked).await;
    let bob = Visitor::new(&app, "bob", "operator").await;
    app.put(&bob.own(), &json!({ "host_groups": ["web"] })).await.expect(200);
    let on_db = finished(&app, OTHER, &mut [&mut db]).await;
    let on_both = finished(&app, OTHER, &mut [&mut web, &mut db]).await;
    let on_web = finished(&app, OTHER, &mut [&mut web]).await;
    let begun = async |hosts: Value| path(&app.post("/api/v1/jobs", &body(OWN, hosts)).await.expect(202));
    let both = begun(json!([{ "host": "web1" }, { "host": "db1" }])).await;
    let over_ssh = json!({ "host": "192.0.2.1", "username": "u",
        "auth": { "type": "password", "password": "x-secret" } });
    for who in [&ci, &bob] {
        for targets in [
            json!([{ "host": "db1" }]),
            json!([{ "group": "db" }]),
            json!([{ "host": "web1" }, { "group": "db" }]),
            json!([over_ssh]),
            json!([{ "host": "web1" }, over_ssh]),
        ] {
            let answer = who.post(&app, "/api/v1/jobs", &body(OWN, targets.clone())).await;
            assert_eq!(answer.status, 403, "{targets}: {}", answer.text);
        }
        untouchable(&app, who, &on_db, &both, 403).await;
        untouchable(&app, who, &on_both, &both, 403).await;
        who.get(&app, &on_db).await.expect(200);
        // Limited as it is, it has its own group.
        who.post(&app, "/api/v1/jobs", &body(OTHER, json!([{ "group": "web" }]))).await.expect(202);
    }
    app.post(&format!("{both}/cancel"), &json!({})).await.expect(202);
    app.change("UPDATE jobs SET cancel_at = NULL WHERE finished_at IS NOT NULL").await;
    for who in [&ci, &bob] {
        let own = begun(json!([{ "host": "web1" }])).await;
        touchable(&app, who, &on_web, &own).await;
    }
}

async fn a_token_for_one_repository_touches_no_other(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut web = FakeAgent::enrol(&app, "web1", "web").await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    let asked = json!({ "name": "ci", "role": "operator", "surfaces": ["jobs"], "repositories": [OWN] });
    let ci = token(&app, &alice, asked).await;
    let (own, other) =
        (finished(&app, OWN, &mut [&mut web]).await, finished(&app, OTHER, &mut [&mut web]).await);
    let begun = async |repository: &str| {
        path(&app.post("/api/v1/jobs", &body(repository, json!([{ "host": "web1" }]))).await.expect(202))
    };
    let under_way = begun(OTHER).await;
    let refused = ci.post(&app, "/api/v1/jobs", &body(OTHER, json!([{ "host": "web1" }]))).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    untouchable(&app, &ci, &other, &under_way, 404).await;
    app.post(&format!("{under_way}/cancel"), &json!({})).await.expect(202);
    let under_way = begun(OWN).await;
    touchable(&app, &ci, &own, &under_way).await;
}

/// What it could not have asked for is not there for it.
async fn a_token_for_one_repository_sees_no_other(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut web = FakeAgent::enrol(&app, "web1", "web").await;
    let mut db = FakeAgent::enrol(&app, "db1", "db").await;
    let alice = Visitor::new(&app, "alice", "operator").await;
    let scope = |more: Value| {
        let mut scope = json!({ "name": "ci", "role": "operator", "surfaces": ["jobs"],
            "repositories": ["https://git.example.com/team/app"] });
        scope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scope
    };
    let anywhere = token(&app, &alice, scope(json!({}))).await;
    let on_web = token(&app, &alice, scope(json!({ "groups": ["web"] }))).await;
    let at_srv = token(&app, &alice, scope(json!({ "paths": ["/srv"] }))).await;
    let at_opt = token(&app, &alice, scope(json!({ "paths": ["/opt", "/sr"] }))).await;
    let groups = json!({ "name": "ci", "role": "operator", "surfaces": ["jobs"], "groups": ["web"] });
    let by_group = token(&app, &alice, groups).await;
    let own = finished(&app, OWN, &mut [&mut web]).await;
    let both = finished(&app, OWN, &mut [&mut web, &mut db]).await;
    let other = finished(&app, OTHER, &mut [&mut web]).await;
    let over_ssh = json!({ "host": "127.0.0.1", "port": 1, "username": "u",
        "auth": { "type": "password", "password": "x-secret" } });
    let over_ssh = path(&app.post("/api/v1/jobs?wait=60", &body(OWN, json!([over_ssh]))).await.expect(200));
    let all = [&over_ssh, &other, &both, &own];
    for (who, what, seen) in [
        (&anywhere, "anywhere", vec![&over_ssh, &both, &own]),
        (&on_web, "on web", vec![&own]),
        (&at_srv, "at /srv", vec![&over_ssh, &both, &own]),
        (&at_opt, "at /opt", vec![]),
        (&by_group, "by group", all.to_vec()),
    ] {
        for job in all {
            let status = if seen.contains(&job) { 200 } else { 404 };
            for path in [job.clone(), format!("{job}/logs"), format!("{job}/logs?format=json")] {
                let answer = who.get(&app, &path).await;
                assert_eq!(answer.status, status, "{what} {path}: {}", answer.text);
            }
            if status == 404 {
                untouchable(&app, who, job, job, 404).await;
            }
        }
        let list = &who.get(&app, "/api/v1/jobs?page_size=1&page=1").await.expect(200)["data"];
        assert_eq!(list["total"], seen.len(), "{what}: {list}");
        let list = &who.get(&app, "/api/v1/jobs").await.expect(200)["data"];
        let ids = list["items"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap());
        let ids: Vec<String> = ids.map(|id| format!("/api/v1/jobs/{id}")).collect();
        assert_eq!(ids.iter().collect::<Vec<_>>(), seen, "{what}");
    }
    assert!(app.delete("/api/servers/web1").await.status.is_success());
    assert_eq!(on_web.get(&app, &own).await.status, 404, "of a host that is no more nobody knows the group");
    anywhere.get(&app, &own).await.expect(200);
}
