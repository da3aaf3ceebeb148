//! Approvals: what others agree to runs, and nothing else does.

mod attacks;
mod ends;
mod given;
mod rules;

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signet_testkit::Pair;

use crate::support::fake_agent::FakeAgent;
use crate::support::{Answer, TestApp};
use crate::visitor::Visitor;

/// A controller with a rule on the group `prod`, one host of it, and people.
pub(super) struct World {
    pub(super) app: TestApp,
    pub(super) host: FakeAgent,
    pub(super) alice: Visitor,
    pub(super) bob: Visitor,
    pub(super) carol: Visitor,
}

impl World {
    /// Three operators; `needed` others must agree.
    pub(super) async fn new(pair: Pair, needed: u32) -> Self {
        let app = TestApp::start(pair).await;
        rule(&app, json!({ "target": { "group": "prod" }, "approvals": needed })).await;
        let host = agent(&app, "prod1", "prod").await;
        let (alice, bob, carol) = tokio::join!(
            Visitor::new(&app, "alice", "operator"),
            Visitor::new(&app, "bob", "operator"),
            Visitor::new(&app, "carol", "operator"),
        );
        Self { app, host, alice, bob, carol }
    }

    /// Alice asks for something on the group; its task.
    pub(super) async fn asked(&self) -> String {
        self.asked_with(json!({})).await
    }

    /// Likewise, with more fields.
    pub(super) async fn asked_with(&self, more: Value) -> String {
        let made = self.alice.post(&self.app, "/api/commands", &on("prod", more)).await.expect(201);
        assert_eq!(made["status"], "awaiting_approval", "{made}");
        made["task_id"].as_str().unwrap().to_owned()
    }

    pub(super) async fn approve(&self, who: &Visitor, task: &str) -> Answer {
        approve(&self.app, who, task, None).await
    }

    pub(super) async fn status(&self, task: &str) -> Value {
        self.app.get(&format!("/api/tasks/{task}")).await.expect(200)["status"].clone()
    }

    /// What becomes of the request.
    pub(super) async fn state(&self, task: &str) -> Value {
        self.app.get(&format!("/api/approvals/{task}")).await.expect(200)["state"].clone()
    }

    /// Waits until the task has this status.
    pub(super) async fn until(&self, task: &str, status: &str) -> Value {
        self.app.eventually(&format!("/api/tasks/{task}"), |t| t["status"] == status).await
    }
}

/// A command for a group, with more fields.
pub(super) fn on(group: &str, more: Value) -> Value {
    let mut body = json!({ "target_type": "group", "target": group, "command": "systemctl restart app" });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

pub(super) async fn rule(app: &TestApp, body: Value) -> Value {
    app.post("/api/approval-rules", &body).await.expect(201)
}

/// An agent that knows what an approval is.
pub(super) async fn agent(app: &TestApp, name: &str, group: &str) -> FakeAgent {
    FakeAgent::enrol(app, name, group).await
}

/// What is agreed to: its digest as the controller says it, and its bytes.
pub(super) async fn statement(app: &TestApp, who: &Visitor, task: &str) -> (String, Vec<u8>) {
    let shown = who.get(app, &format!("/api/approvals/{task}")).await.expect(200);
    let bytes = STANDARD.decode(shown["statement"].as_str().unwrap()).unwrap();
    (shown["digest"].as_str().unwrap().to_owned(), bytes)
}

pub(super) async fn approve(app: &TestApp, who: &Visitor, task: &str, signature: Option<&str>) -> Answer {
    let digest = app.get(&format!("/api/approvals/{task}")).await.expect(200)["digest"].clone();
    let body = json!({ "digest": digest, "signature": signature });
    who.post(app, &format!("/api/approvals/{task}/approve"), &body).await
}

/// An SSH key in a directory of its own.
pub(super) struct SshKey {
    dir: tempfile::TempDir,
}

impl SshKey {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        run(Process::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f"])
            .arg(key));
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    pub(super) fn public(&self) -> String {
        std::fs::read_to_string(self.path().with_extension("pub")).unwrap()
    }

    /// What `ssh-keygen -Y sign` makes of these bytes.
    pub(super) fn sign(&self, namespace: &str, bytes: &[u8]) -> String {
        let text = self.dir.path().join("text");
        let signature: &Path = &self.dir.path().join("text.sig");
        std::fs::write(&text, bytes).unwrap();
        std::fs::remove_file(signature).ok();
        run(Process::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
            .arg(self.path())
            .arg(text));
        std::fs::read_to_string(signature).unwrap()
    }

    /// Registers it; its id.
    pub(super) async fn register(&self, app: &TestApp, who: &Visitor) -> String {
        let made =
            who.post(app, "/api/approver-keys", &json!({ "public_key": self.public() })).await.expect(201);
        made["id"].as_str().unwrap().to_owned()
    }
}

fn run(command: &mut Process) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}
