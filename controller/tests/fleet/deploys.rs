//! Deployments by real agents over RabbitMQ, beside a host over SSH.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use signet_testkit::Pair;

use super::agent::Agent;
use super::support::TestApp;

pub struct Site {
    pub app: TestApp,
    pub dir: tempfile::TempDir,
}

pub fn git(dir: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
    let done = Command::new("git").current_dir(dir).args(identity).args(arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

impl Site {
    pub async fn start() -> Self {
        let app = TestApp::start_with(Pair::MariadbRabbitmq.parts().await, |settings| {
            settings.deploying.git_protocols.insert("file".into());
        })
        .await;
        Self::on(app)
    }

    pub fn on(app: TestApp) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        std::fs::create_dir(&repo).unwrap();
        std::fs::write(repo.join("file"), "one").unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        git(&repo, &["add", "-A"]);
        git(&repo, &["commit", "-q", "-m", "one"]);
        Self { app, dir }
    }

    pub async fn agent(&self, name: &str) -> Agent {
        self.agent_with(name, "").await
    }

    /// An agent with more in its policy.
    pub async fn agent_with(&self, name: &str, policy: &str) -> Agent {
        let data = self.dir.path().join(name);
        std::fs::create_dir(&data).unwrap();
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&data, own).unwrap();
        let roots = format!("deploy_roots = [{:?}]\n{policy}", self.place());
        std::fs::write(data.join("policy.toml"), roots).unwrap();
        Agent::start(&self.app, self.dir.path(), name, "web").await
    }

    /// What the repository's branch holds from now on; gives the commit.
    pub fn commit(&self, text: &str) -> String {
        let repo = self.dir.path().join("repo");
        std::fs::write(repo.join("file"), text).unwrap();
        git(&repo, &["commit", "-q", "-a", "-m", text]);
        let head = Command::new("git").current_dir(&repo).args(["rev-parse", "HEAD"]).output().unwrap();
        String::from_utf8(head.stdout).unwrap().trim().to_owned()
    }

    pub fn place(&self) -> PathBuf {
        self.dir.path().join("srv")
    }

    pub fn body(&self, name: &str, targets: Value) -> Value {
        let repo = format!("file://{}", self.dir.path().join("repo").display());
        json!({ "git_repo": repo, "git_branch": "main", "dest_path": self.place().join(name), "targets": targets })
    }

    pub async fn run(&self, body: &Value) -> (Value, String) {
        let made = self.app.post("/api/v1/jobs?wait=60", body).await.expect(200);
        self.shown(made["data"]["job_id"].as_str().unwrap()).await
    }

    pub async fn shown(&self, id: &str) -> (Value, String) {
        let job = self.app.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["data"].take();
        (job, self.app.get(&format!("/api/v1/jobs/{id}/logs")).await.text)
    }
}

pub fn statuses(job: &Value) -> Vec<&str> {
    job["targets"].as_array().unwrap().iter().map(|t| t["status"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_agents_deploy_what_one_job_pins() {
    let site = Site::start().await;
    let _agents = (site.agent("h1").await, site.agent("h2").await);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let over_ssh = json!({ "host": "127.0.0.1", "port": closed, "username": "u",
        "auth": { "type": "password", "password": "x-secret" } });
    let mut body = site.body("app", json!([{ "group": "web" }, over_ssh]));
    // Both are on this machine: the second finds what the first one brought.
    body["run_mode"] = "serial".into();
    let (job, log) = site.run(&body).await;
    assert_eq!(statuses(&job), ["SUCCESS", "SUCCESS", "UNREACHABLE"], "{job} {log}");
    assert_eq!((&job["targets"][0]["changed"], &job["targets"][1]["changed"]), (&json!(true), &json!(false)));
    assert_eq!(job["targets"][0]["commit"], job["commit"]);
    assert_eq!((&job["targets"][0]["host"], &job["targets"][0]["engine"]), (&json!("h1"), &json!("agent")));
    assert_eq!(std::fs::read_to_string(site.place().join("app/file")).unwrap(), "one");
    for wanted in
        ["PLAY [all]", "TASK [git]", "changed: [h1]", "ok: [h2]", "fatal: [127.0.0.1]: ", "PLAY RECAP"]
    {
        assert!(log.contains(wanted), "no {wanted}: {log}");
    }
    assert!(log.lines().any(|l| l.starts_with("h1 ") && l.contains("ok=1    changed=1")), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_what_was_edited_by_hand_is_seen() {
    let site = Site::start().await;
    let _agent = site.agent("h1").await;
    let host = json!([{ "host": "h1" }]);
    let (job, log) = site.run(&site.body("app", host.clone())).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{log}");
    let as_deployed = |rows: &Value| rows.as_array().unwrap().len() == 1 && rows[0]["drifted"] == false;
    let rows = site.app.eventually("/api/deployments", as_deployed).await;
    assert_eq!((&rows[0]["job_id"], &rows[0]["wanted"]), (&job["job_id"], &job["commit"]));
    assert_eq!((&rows[0]["deployed"], &rows[0]["commit"]), (&job["commit"], &job["commit"]));
    std::fs::write(site.place().join("app/file"), "by hand").unwrap();
    // An agent looks at all paths after each deployment.
    site.run(&site.body("other", host)).await;
    let found = |rows: &Value| rows.as_array().unwrap().len() == 1;
    let rows = site.app.eventually("/api/deployments?drifted=true", found).await;
    assert_eq!(rows[0]["path"], json!(site.place().join("app")));
    assert_eq!((&rows[0]["edited"], &rows[0]["commit"]), (&json!(true), &job["commit"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_releases_and_their_ends() {
    let site = Site::start().await;
    let _agent = site.agent("h1").await;
    let host = json!([{ "host": "h1" }]);
    let mut body = site.body("app", host.clone());
    body["strategy"] = "releases".into();
    body["build"] = json!(["echo built > built"]);
    let (job, log) = site.run(&body).await;
    assert_eq!(statuses(&job), ["SUCCESS"], "{job} {log}");
    assert_eq!(std::fs::read_to_string(site.place().join("app/current/built")).unwrap(), "built\n");
    assert_eq!(job["releases"]["build"], body["build"]);
    // Cancelled while a hook runs.
    body["build"] = json!(["sleep 1000"]);
    body["force"] = true.into();
    let id =
        site.app.post("/api/v1/jobs", &body).await.expect(202)["data"]["job_id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/jobs/{id}");
    site.app.eventually(&path, |job| job["data"]["targets"][0]["status"] == "RUNNING").await;
    site.app.post(&format!("{path}/cancel"), &json!({})).await.expect(202);
    let over = site.app.eventually(&path, |job| job["data"]["finished_at"].is_string()).await;
    assert_eq!(over["data"]["status"], "CANCELLED", "{over}");
    // What nobody can find fails, with a reason.
    let mut lost = site.body("other", host.clone());
    lost["git_branch"] = "nowhere".into();
    let (job, log) = site.run(&lost).await;
    assert_eq!(statuses(&job), ["FAILED"]);
    let why = job["targets"][0]["reason"].as_str().unwrap();
    assert!(why.contains("could find the commit") && log.contains("fatal: [h1]: FAILED! => "), "{why} {log}");
    // The host's own policy decides last.
    let mut outside = site.body("x", host.clone());
    outside["dest_path"] = "/srv/outside".into();
    let (job, log) = site.run(&outside).await;
    assert_eq!(statuses(&job), ["FAILED"], "{log}");
    assert!(job["targets"][0]["reason"].as_str().unwrap().contains("deploy roots"), "{job}");
    let unknown = site.body("x", json!([{ "host": "h9" }, { "group": "none" }]));
    let wrong = site.app.post("/api/v1/jobs", &unknown).await.expect(422)["error"]["details"].take();
    assert_eq!(
        wrong.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["targets[0].auth", "targets[1].group"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_canary_goes_first() {
    let site = Site::start().await;
    let _agents = (site.agent("h1").await, site.agent("h2").await);
    let mut body = site.body("app", json!([{ "group": "web" }]));
    body["strategy"] = "releases".into();
    body["build"] = json!(["false"]);
    body["canary"] = json!(["h2"]);
    body["pause"] = 1.into();
    let (job, log) = site.run(&body).await;
    assert_eq!(statuses(&job), ["SKIPPED", "FAILED"], "{log}");
    assert!(log.lines().any(|l| l == "canary h2 failed: 1 host is skipped"), "{log}");
    assert!(log.lines().any(|l| l.starts_with("h1 ") && l.contains("skipped=1")), "{log}");
    body["build"] = json!(["true"]);
    let (job, log) = site.run(&body).await;
    assert_eq!(statuses(&job), ["SUCCESS", "SUCCESS"], "{job} {log}");
    let turn = |line: &str| log.lines().position(|l| l == line).unwrap_or_else(|| panic!("no {line}: {log}"));
    assert!(turn("changed: [h2]") < turn("pause of 1 s") && turn("pause of 1 s") < turn("ok: [h1]"), "{log}");
}
