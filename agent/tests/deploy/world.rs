//! A repository to deploy, and a runner that deploys it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use signet_agent::run::{CgroupChoice, Program, RunEvent, Runner, RunnerConfig, Running, Spec};
use signet_common::deploy::Deployed;
use signet_common::ids::Jti;
use signet_common::messages::{CommandResult, Outcome};
use tempfile::TempDir;

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with an origin, a place to deploy to, and an agent's directory.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) origin: PathBuf,
    pub(crate) path: PathBuf,
    runner: Runner,
    /// `HOME` of the deployments; empty.
    pub(crate) home: PathBuf,
    /// Whether the host runs not just any program.
    pub(crate) narrowed: bool,
}

/// How a deployment ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) result: CommandResult,
    pub(crate) deployed: Option<Deployed>,
    pub(crate) fault: Option<String>,
    /// Both streams.
    pub(crate) log: String,
}

impl Done {
    pub(crate) fn succeeded(self) -> Deployed {
        assert_eq!(self.result.outcome, Outcome::Succeeded, "{:?}\n{}", self.fault, self.log);
        self.deployed.expect("a report")
    }

    /// That it failed, and says this.
    #[track_caller]
    pub(crate) fn failed(self, why: &str) -> Deployed {
        assert_eq!(self.result.outcome, Outcome::Failed, "{}", self.log);
        let fault = self.fault.unwrap_or_default();
        assert!(fault.contains(why), "{fault:?} does not say {why:?}\n{}", self.log);
        self.deployed.unwrap_or_default()
    }
}

/// Runs git for the test itself, and gives what it says.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (origin, home) = (root.join("origin"), root.join("home"));
        fs::create_dir_all(&origin).unwrap();
        fs::create_dir_all(&home).unwrap();
        git(&origin, &["init", "-q"]);
        let runner = runner(&root.join("data"), env!("CARGO_BIN_EXE_signet-agent").into());
        let world = Self { path: root.join("srv/app"), origin, home, runner, dir, narrowed: false };
        world.commit("one");
        world
    }

    /// A commit in which `version` says this.
    pub(crate) fn commit(&self, version: &str) -> String {
        fs::write(self.origin.join("version"), version).unwrap();
        fs::create_dir_all(self.origin.join("config")).unwrap();
        fs::write(self.origin.join("config/app.conf"), "from the repository").unwrap();
        self.commit_all()
    }

    /// A commit of whatever stands in the origin's tree.
    pub(crate) fn commit_all(&self) -> String {
        git(&self.origin, &["add", "-A"]);
        git(&self.origin, &["commit", "-q", "--allow-empty", "-m", "x"]);
        self.head()
    }

    pub(crate) fn head(&self) -> String {
        git(&self.origin, &["rev-parse", "HEAD"])
    }

    /// A message for the origin's head; `change` overrides its fields.
    pub(crate) fn message(&self, change: Value) -> Value {
        let mut message = json!({
            "iss": "controller", "aud": ["a".repeat(40)], "iat": 1, "exp": 2, "jti": Jti::generate(),
            "task_id": "job-1", "phase": "deploy", "repository": format!("file://{}", self.origin.display()),
            "reference": "main", "commit": self.head(), "path": self.path,
            "protocols": ["file"], "timeout": 60,
        });
        message.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        message
    }

    pub(crate) fn spec(&self, change: Value, secret: Option<&str>) -> (Spec, PathBuf) {
        let message = self.message(change);
        let jti: Jti = message["jti"].as_str().unwrap().parse().unwrap();
        let timeout = message["timeout"].as_u64().unwrap();
        let user = message["user"].as_str().map(str::to_owned);
        let roots = json!({ "Below": [self.dir.path().join("srv")] });
        let plan = json!({ "deploy": message, "secret": secret, "roots": roots, "narrowed": self.narrowed });
        let report = self.dir.path().join(format!("data/{jti}.report"));
        let spec = driver(jti, report.clone(), self.home.display().to_string(), plan.to_string());
        (Spec { user, timeout: Duration::from_secs(timeout), ..spec }, report)
    }

    /// Deploys the origin's head, with changes, to the end.
    pub(crate) async fn deploy(&self, change: Value) -> Done {
        self.deploy_with(change, None).await
    }

    pub(crate) async fn deploy_with(&self, change: Value, secret: Option<&str>) -> Done {
        let (spec, report) = self.spec(change, secret);
        self.run(spec, &report).await
    }

    pub(crate) async fn run(&self, spec: Spec, report: &Path) -> Done {
        finish(self.runner.start(spec).await.unwrap(), report).await
    }

    /// Begins to deploy the origin's head, with changes; gives where its report will be.
    pub(crate) async fn start(&self, change: Value) -> (Running, PathBuf) {
        let (spec, report) = self.spec(change, None);
        (self.runner.start(spec).await.unwrap(), report)
    }

    /// Deploys by another runner.
    pub(crate) async fn deploy_by(&self, runner: &Runner, change: Value) -> Done {
        let (spec, report) = self.spec(change, None);
        finish(runner.start(spec).await.unwrap(), &report).await
    }

    /// Another runner, whose program is this.
    pub(crate) fn clone_with(&self, launcher: PathBuf) -> Runner {
        runner(&self.dir.path().join("other"), launcher)
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }
}

pub(crate) fn runner(data: &Path, launcher: PathBuf) -> Runner {
    Runner::new(RunnerConfig { data_dir: data.to_owned(), launcher, cgroup: CgroupChoice::Never }).unwrap()
}

/// A driver with this plan.
pub(crate) fn driver(jti: Jti, report: PathBuf, home: String, plan: String) -> Spec {
    Spec {
        jti,
        program: Program::Deploy(report),
        env: BTreeMap::from([("HOME".to_owned(), home)]),
        cwd: Some("/".into()),
        stdin: Some(plan),
        user: None,
        timeout: PATIENCE,
        output_limit: 1024 * 1024,
        detached: false,
    }
}

/// Follows a deployment to its end.
pub(crate) async fn finish(mut running: Running, report: &Path) -> Done {
    let mut log = Vec::new();
    let result = loop {
        match running.next().await {
            RunEvent::Output { data, .. } => log.extend(data),
            RunEvent::Count { .. } => {}
            RunEvent::Finished(result) => break *result,
        }
    };
    log.extend(&result.stdout);
    log.extend(&result.stderr);
    let report: Option<Value> = serde_json::from_slice(&fs::read(report).unwrap_or_default()).ok();
    Done {
        deployed: report.as_ref().map(|r| serde_json::from_value(r["deploy"].clone()).unwrap()),
        fault: report.and_then(|r| r["fault"].as_str().map(str::to_owned)),
        log: String::from_utf8_lossy(&log).into_owned(),
        result,
    }
}
