//! Lists: bare arrays, in their order, page by page with `Link`.

use serde_json::{Value, json};
use signet_testkit::{Pair, on_both_pairs};

use crate::support::TestApp;
use crate::support::fake_agent::{FakeAgent, exited};

on_both_pairs!(pages_join_up_to_the_whole_list, a_bad_page_names_its_parameter, results_have_pages);

/// Follows `Link` from page to page, each of which is full but the last, and gives one field of every item.
async fn walk(app: &TestApp, first: &str, limit: usize, field: &str) -> Vec<String> {
    let (mut path, mut found) = (first.to_owned(), Vec::new());
    loop {
        let answer = app.get(&path).await;
        let link = answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        let page = answer.expect(200);
        let items = page.as_array().unwrap();
        assert!(!items.is_empty() || found.is_empty(), "a page after the last one: {path}");
        found.extend(items.iter().map(|item| item[field].as_str().unwrap().to_owned()));
        let Some(link) = link else { return found };
        assert_eq!(items.len(), limit, "{path}");
        let (target, relation) = link.split_once('>').unwrap();
        assert_eq!(relation, "; rel=\"next\"");
        path = target.trim_start_matches('<').to_owned();
    }
}

async fn pages_join_up_to_the_whole_list(pair: Pair) {
    let app = TestApp::start(pair).await;
    for host in ["e", "a", "d", "b", "c", "f"] {
        let body = json!({ "hostname": host, "ip": "10.0.0.1", "group": "g&h ü" });
        app.post("/api/servers", &body).await.expect(201);
    }
    let mut tasks = Vec::new();
    for n in 0..6 {
        let body = json!({ "target_type": "node", "target": "a", "command": format!("echo {n}") });
        let task = app.post("/api/commands", &body).await.expect(201);
        tasks.insert(0, task["task_id"].as_str().unwrap().to_owned());
    }
    for host in ["a", "b", "c"] {
        let body = json!({ "public_key_pem": app.agent_key().public().to_pem() });
        app.put(&format!("/api/client-keys/{host}"), &body).await.expect(200);
    }
    for limit in [1, 2, 3, 4, 6, 7] {
        let page = |path: &str| format!("{path}limit={limit}");
        let servers = walk(&app, &page("/api/servers?"), limit, "hostname").await;
        assert_eq!(servers, ["a", "b", "c", "d", "e", "f"]);
        let grouped = walk(&app, &page("/api/servers?group=g%26h%20%C3%BC&"), limit, "hostname").await;
        assert_eq!(grouped, servers, "other parameters are kept");
        assert_eq!(walk(&app, &page("/api/tasks?target=a&"), limit, "task_id").await, tasks);
        assert_eq!(walk(&app, &page("/api/client-keys?"), limit, "hostname").await, ["a", "b", "c"]);
        assert_eq!(walk(&app, &page("/api/agents?"), limit, "hostname").await.len(), 3);
    }
    assert!(app.get("/api/tasks").await.headers.get("link").is_none());
}

async fn a_bad_page_names_its_parameter(pair: Pair) {
    let app = TestApp::start(pair).await;
    for (query, name) in [
        ("servers?limit=0", "limit"),
        ("servers?limit=many", "limit"),
        ("servers?status=gone", "status"),
        ("tasks?limit=-1", "limit"),
        ("tasks?cursor=x", "cursor"),
        ("tasks?since=yesterday", "since"),
        ("client-keys?limit=0", "limit"),
        ("agents?standing=x", "standing"),
    ] {
        let detail = app.get(&format!("/api/{query}")).await.expect(400)["detail"].take();
        assert!(detail.as_str().unwrap().contains(name), "{query}: {detail}");
    }
    let kind = app.get("/api/tasks?target_type=x").await.expect(400);
    assert_eq!(kind, json!({ "detail": "无效的目标类型" }));
}

async fn results_have_pages(pair: Pair) {
    let app = TestApp::start(pair).await;
    let mut agents = Vec::new();
    for host in ["a", "b", "c"] {
        agents.push(FakeAgent::enrol(&app, host, "web").await);
    }
    let body = json!({ "target_type": "group", "target": "web", "command": "true" });
    let task = app.post("/api/commands", &body).await.expect(201);
    let path = format!("/api/tasks/{}/results", task["task_id"].as_str().unwrap());
    // In order of finishing.
    for agent in agents.iter_mut().rev() {
        agent.run_next(exited(0, agent.hostname.clone().as_str(), "")).await;
        let done = |results: &Value| {
            results.as_array().unwrap().iter().any(|r| r["hostname"] == agent.hostname.as_str())
        };
        app.eventually(&path, done).await;
    }
    for limit in [1, 2, 3, 4] {
        let hosts = walk(&app, &format!("{path}?limit={limit}"), limit, "hostname").await;
        assert_eq!(hosts, ["c", "b", "a"]);
    }
    let online = walk(&app, "/api/servers?status=online&limit=2", 2, "hostname").await;
    assert_eq!(online, ["a", "b", "c"]);
    let task = app.get(path.trim_end_matches("/results")).await.expect(200);
    assert_eq!(task["status"], "done");
}
