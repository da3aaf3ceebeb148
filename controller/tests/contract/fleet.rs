//! The fleet document: every endpoint, block, error, parameter and model of it, against a running controller.

use reqwest::Method;
use serde_json::{Value, json};
use signet_testkit::{Pair, on_both_pairs};

use crate::compare::Extras;
use crate::contract::Contract;
use crate::support::fake_agent::{FakeAgent, exited};
use crate::support::{Answer, TestApp};

pub(crate) const DOCUMENT: &str = include_str!("../specs/fleet.md");

on_both_pairs!(the_document_is_kept, a_doctored_document_is_found_out);

async fn the_document_is_kept(pair: Pair) {
    let problems = check(pair, DOCUMENT).await;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The test itself is tested: each change of the document must be noticed.
async fn a_doctored_document_is_found_out(pair: Pair) {
    let replaced = |from: &str, to: &str, text: String| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let text = DOCUMENT.to_owned() + "\n### 9\n**接口路径**：`GET /api/new`\n**响应**：\n```json\n{}\n```\n";
    let text = replaced("- 409 Conflict：主机名已存在", "- 409 Conflict：x\n- 418 Teapot：x", text);
    let text = replaced("主机名已存在 |", "主机名已存在、另一个错误 |", text);
    let text = replaced("\"status\": \"ok\"", "\"status\": \"ok\", \"more\": 1", text);
    let text = replaced("| cpu_usage | float |", "| cpu_usage | string |", text);
    let text = replaced("\"cpu_usage\": 15.5", "\"cpu_usage\": \"15.5\"", text);
    let mut problems = check(pair, &text).await;
    problems.sort();
    let expected = [
        "GET /api/health: the fields",
        "GET /api/servers[0].cpu_usage: \"15.5\" in the document, 15.5 in the answer",
        "Server.cpu_usage is not a string",
        "not visited: 409 另一个错误",
        "not visited: GET /api/new",
        "not visited: GET /api/new 响应",
        "not visited: POST /api/servers 418",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem} does not start with {start}");
    }
}

async fn check(pair: Pair, text: &str) -> Vec<String> {
    let app = TestApp::start(pair).await;
    let mut contract = Contract::new(text);
    health(&app, &mut contract).await;
    add_server(&app, &mut contract).await;
    // One host plays all: it has the key that the examples put, and says in its heartbeat what they show.
    let mut agent = FakeAgent::new(&app, "server1", "web").await;
    keys(&app, &mut contract, &agent).await;
    agent.hello(&app).await;
    agent.consume().await;
    agent.come_online(&app).await;
    list_servers(&app, &mut contract).await;
    commands(&app, &mut contract, &mut agent).await;
    contract.finish()
}

async fn health(app: &TestApp, contract: &mut Contract) {
    let answer = TestApp::send(app.anonymous(Method::GET, "/api/health")).await;
    contract.answered("GET /api/health", 200, &answer, Extras::None);
}

async fn add_server(app: &TestApp, contract: &mut Contract) {
    let endpoint = "POST /api/servers";
    let body = contract.request(endpoint);
    let answer = app.post("/api/servers", &body).await;
    let server = contract.answered(endpoint, 201, &answer, Extras::Behind);
    contract.model("Server", &server);
    contract.refused(endpoint, 409, "主机名已存在", &app.post("/api/servers", &body).await);
}

async fn list_servers(app: &TestApp, contract: &mut Contract) {
    // Its address is where the hello came from; an operator may say what it is to others.
    let shown = contract.response("GET /api/servers")[0]["ip"].clone();
    let change = app.request(Method::PATCH, "/api/servers/server1").json(&json!({ "ip": shown }));
    TestApp::send(change).await.expect(200);
    let servers = contract.answered("GET /api/servers", 200, &app.get("/api/servers").await, Extras::Behind);
    contract.model("Server", &servers[0]);
}

async fn keys(app: &TestApp, contract: &mut Contract, agent: &FakeAgent) {
    let (put, get) = ("PUT /api/client-keys/{hostname}", "GET /api/client-keys/{hostname}");
    let path = "/api/client-keys/server1";
    contract.refused(get, 404, "公钥不存在", &app.get(path).await);
    let mut body = contract.request(put);
    // The example's key is cut short, so it is no key; the true one takes its place.
    contract.refused(put, 400, "无效的公钥格式", &app.put(path, &body).await);
    body["public_key_pem"] = agent.key.public().to_pem().into();
    let key = contract.answered(put, 200, &app.put(path, &body).await, Extras::Behind);
    assert_eq!(key["public_key_pem"], body["public_key_pem"]);
    contract.model("ClientPublicKey", &key);
    contract.answered(get, 200, &app.get(path).await, Extras::Behind);
    contract.answered("GET /api/client-keys", 200, &app.get("/api/client-keys").await, Extras::Behind);
}

async fn commands(app: &TestApp, contract: &mut Contract, agent: &mut FakeAgent) {
    let (endpoint, results) = ("POST /api/commands", "GET /api/tasks/{task_id}/results");
    let body = contract.request(endpoint);
    let task = contract.answered(endpoint, 201, &app.post("/api/commands", &body).await, Extras::Behind);
    contract.model("Task", &task);
    let tasks = contract.answered("GET /api/tasks", 200, &app.get("/api/tasks").await, Extras::Behind);
    assert_eq!(tasks[0], task);

    let path = format!("/api/tasks/{}/results", task["task_id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.expect(200), json!([]), "nothing has finished yet");
    let shown = contract.response(results)[0].clone();
    let text = |name: &str| shown[name].as_str().unwrap().to_owned();
    let sent = agent.run_next(exited(0, &text("stdout"), &text("stderr"))).await;
    assert_eq!((sent.command.as_deref(), sent.timeout), (body["command"].as_str(), 30));
    assert_eq!(sent.user.as_deref(), body["user"].as_str());
    app.eventually(&path, |found| found != &json!([])).await;
    let finished = contract.answered(results, 200, &app.get(&path).await, Extras::Behind);
    assert_eq!(finished[0]["task_id"], task["task_id"]);
    contract.model("TaskResult", &finished[0]);
    parameters(app, contract, endpoint).await;
}

/// What the document says of each parameter: which values there are, and what is needed when.
async fn parameters(app: &TestApp, contract: &mut Contract, endpoint: &str) {
    let post = async |body: Value| -> Answer { app.post("/api/commands", &body).await };
    let made = async |body: Value| -> Value { post(body).await.expect(201) };
    for (kind, target) in [("node", "server1"), ("group", "web"), ("all", "")] {
        let task = made(json!({ "target_type": kind, "target": target, "command": "ls" })).await;
        assert_eq!(task["target_type"], kind);
        assert_eq!(task["target"], if kind == "all" { Value::Null } else { target.into() });
        // Nothing said: 30 seconds, as the agent's own user.
        assert_eq!((&task["timeout"], &task["user"]), (&json!(30), &Value::Null));
    }
    for name in ["target_type", "target", "command", "timeout", "user"] {
        contract.parameter(endpoint, name);
    }
    let wrong = post(json!({ "target_type": "some", "target": "x", "command": "ls" })).await;
    contract.refused(endpoint, 400, "无效的目标类型", &wrong);
    for kind in ["node", "group"] {
        for target in [Value::Null, "".into()] {
            let missing = post(json!({ "target_type": kind, "target": target, "command": "ls" })).await;
            contract.refused(endpoint, 400, "目标值缺失", &missing);
        }
        let unknown = post(json!({ "target_type": kind, "target": "nobody", "command": "ls" })).await;
        assert_eq!(unknown.status, 404, "{}", unknown.text);
    }
    assert_eq!(app.get("/api/tasks/nobody/results").await.status, 404);
    assert_eq!(
        post(json!({ "target_type": "all" })).await.expect(400),
        json!({ "detail": "command is required" })
    );
    let coerced = post(json!({ "target_type": "all", "command": "ls", "timeout": "30" })).await.expect(400);
    assert!(coerced["detail"].as_str().unwrap().starts_with("timeout: "), "{coerced}");
}
