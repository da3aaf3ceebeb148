//! What these tests deploy, and how they ask for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use signet_controller::settings::Settings;
use signet_testkit::{Pair, not_ran, ran};

use crate::support::TestApp;

/// A repository with one file, and a controller that may deploy it.
pub(crate) struct Site {
    pub(crate) app: TestApp,
    pub(crate) dir: tempfile::TempDir,
    ansible: &'static str,
}

/// As `scripts/test` counts them.
const DISTRIBUTION: &str = "ansible-of-the-distribution";
const CURRENT: &str = "current-ansible";

fn git(dir: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// The `ansible-playbook` that `scripts/setup` took from the package index, which is newer than Debian's.
pub(crate) fn current_ansible() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ansible-core/bin/ansible-playbook");
    let found = path.exists().then_some(path);
    if found.is_none() {
        not_ran(CURRENT);
        eprintln!("no current ansible-core: scripts/setup could not install it");
    }
    found
}

impl Site {
    /// With the Ansible that is on PATH.
    pub(crate) async fn start(pair: Pair) -> Self {
        Self::with(pair, None).await
    }

    /// With this `ansible-playbook`.
    pub(crate) async fn with(pair: Pair, ansible: Option<PathBuf>) -> Self {
        let part = Self::part(ansible.as_ref());
        let app = TestApp::start_with(pair.parts().await, |settings| Self::allow(settings, ansible)).await;
        Self::on(app, part)
    }

    /// A controller may deploy from a directory, and by this `ansible-playbook`.
    pub(crate) fn allow(settings: &mut Settings, ansible: Option<PathBuf>) {
        settings.deploying.git_protocols.insert("file".into());
        if let Some(program) = ansible {
            settings.deploying.ansible_playbook = program;
        }
    }

    /// What `scripts/test` calls this `ansible-playbook`.
    pub(crate) fn part(ansible: Option<&PathBuf>) -> &'static str {
        if ansible.is_some() { CURRENT } else { DISTRIBUTION }
    }

    pub(crate) fn on(app: TestApp, ansible: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(0), Some(0)).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        std::fs::create_dir(dir.path().join("repo")).unwrap();
        let site = Self { app, dir, ansible };
        git(&site.repo(), &["init", "-q", "-b", "main"]);
        site.commit("one");
        site
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// A commit with this text in its file.
    pub(crate) fn commit(&self, text: &str) {
        std::fs::write(self.repo().join("file"), text).unwrap();
        git(&self.repo(), &["add", "-A"]);
        git(&self.repo(), &["commit", "-q", "-m", text]);
    }

    /// The commit of its branch.
    pub(crate) fn head(&self) -> String {
        let head = Command::new("git").current_dir(self.repo()).args(["rev-parse", "HEAD"]).output().unwrap();
        String::from_utf8(head.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn body(&self, targets: &[Value]) -> Value {
        let repo = format!("file://{}", self.repo().display());
        json!({ "git_repo": repo, "git_branch": "main", "dest_path": "/srv/app", "targets": targets })
    }

    /// Runs a job to its end and gives its detail.
    pub(crate) async fn run(&self, body: &Value) -> Value {
        let made = self.app.post("/api/v1/jobs?wait=120", body).await.expect(200);
        let job = self.detail(made["data"]["job_id"].as_str().unwrap()).await;
        if job["targets"].as_array().unwrap().iter().any(|t| t["engine"] == "ssh" && t["status"] == "SUCCESS")
        {
            ran(self.ansible);
        }
        job
    }

    pub(crate) async fn retry(&self, job: &Value) -> Value {
        let path = format!("/api/v1/jobs/{}/retry?wait=120", job["job_id"].as_str().unwrap());
        let made = self.app.post(&path, &json!({})).await.expect(200);
        self.detail(made["data"]["job_id"].as_str().unwrap()).await
    }

    pub(crate) async fn detail(&self, id: &str) -> Value {
        self.app.get(&format!("/api/v1/jobs/{id}")).await.expect(200)["data"].take()
    }

    pub(crate) async fn log(&self, job: &Value) -> String {
        self.app.get(&format!("/api/v1/jobs/{}/logs", job["job_id"].as_str().unwrap())).await.text
    }
}

/// A target with a password.
pub(crate) fn with_password(host: &str, port: u16, user: &str, password: &str) -> Value {
    json!({ "host": host, "port": port, "username": user, "auth": { "type": "password", "password": password } })
}

/// A target with a key.
pub(crate) fn with_key(host: &str, port: u16, user: &str, key: &str, passphrase: Option<&str>) -> Value {
    json!({ "host": host, "port": port, "username": user,
        "auth": { "type": "private_key", "private_key": key, "passphrase": passphrase } })
}

/// Where a job's targets stand.
pub(crate) fn statuses(job: &Value) -> Vec<&str> {
    job["targets"].as_array().unwrap().iter().map(|t| t["status"].as_str().unwrap()).collect()
}
