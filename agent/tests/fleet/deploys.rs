//! Deployments from the queue to their result.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use signet_agent::AgentConfig;
use signet_agent::policy::Policy;
use signet_common::PayloadType;
use signet_common::deploy::{Credential, Deploy};
use signet_common::ids::{AgentId, Jti, TaskId};
use signet_common::messages::{Event, Outcome};
use signet_common::seal::{Binding, seal};
use signet_common::statement::{Approval, NAMESPACE, Statement};
use signet_testkit::eventually;
use signet_testkit::ssh::SshKey;

use crate::backend::{Backend, holds, seen_in_files};
use crate::controller::{Controller, PATIENCE, now};
use crate::support::{Agent, config};

const TOKEN: &str = "fleet/t0ken+with=signs";

/// A host that may deploy below one directory, and a repository.
struct Host {
    dir: tempfile::TempDir,
    root: PathBuf,
    controller: Controller,
    agent: Agent,
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
    let output = command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Host {
    async fn new(policy: &str) -> Self {
        let (controller, dir) = (Controller::start().await, tempfile::tempdir().unwrap());
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("origin")).unwrap();
        git(&root.join("origin"), &["init", "-q", "-b", "main"]);
        let file = root.join("policy.toml");
        fs::write(&file, format!("deploy_roots = [{:?}]\n{policy}", root.join("srv"))).unwrap();
        let policy = Policy::default().find(Some(&file), &root).unwrap();
        let config = AgentConfig { policy, ..config(&controller, &root.join("data")) };
        let agent = Agent::start(&controller, config).await;
        let host = Self { dir, root, controller, agent };
        host.commit("one");
        host
    }

    fn commit(&self, version: &str) -> String {
        let origin = self.root.join("origin");
        fs::write(origin.join("version"), version).unwrap();
        git(&origin, &["add", "-A"]);
        git(&origin, &["commit", "-q", "-m", version]);
        git(&origin, &["rev-parse", "HEAD"])
    }

    /// A message that deploys the origin's head; `change` overrides its fields.
    fn message(&self, change: Value) -> Value {
        let mut message = json!({
            "iss": "controller", "aud": [self.agent.id], "iat": now(), "exp": now() + 600, "jti": Jti::generate(),
            "task_id": TaskId::generate(), "phase": "deploy", "protocols": ["file", "http"], "timeout": 60,
            "repository": format!("file://{}", self.root.join("origin").display()), "reference": "main",
            "commit": git(&self.root.join("origin"), &["rev-parse", "HEAD"]), "path": self.root.join("srv/app"),
        });
        message.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        message
    }

    async fn send(&self, message: &Value) -> Jti {
        let envelope = self.controller.sign(PayloadType::Deploy, message);
        self.controller.publish(&self.agent.id, envelope).await;
        message["jti"].as_str().unwrap().parse().unwrap()
    }

    async fn deploy(&self, change: Value) -> Jti {
        self.send(&self.message(change)).await
    }

    async fn refuses(&self, jti: &Jti, why: &str) {
        let found = self.controller.wait("a rejection", |state| {
            state.events.iter().find_map(|event| match event {
                Event::Rejected { jti: of, reason, detail, .. } if of == jti => {
                    Some(format!("{reason:?}: {detail}"))
                }
                Event::Result { jti: of, result, .. } if of == jti => Some(format!("{result:?}")),
                _ => None,
            })
        });
        let found = found.await;
        assert!(found.contains(why), "{found:?} does not say {why:?}");
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root.join("srv/app").join(file)).unwrap()
    }
}

#[tokio::test]
async fn a_commit_is_deployed_and_its_result_says_so() {
    let host = Host::new("").await;
    let jti = host.deploy(json!({ "phase": "resolve", "commit": null })).await;
    let resolved = host.controller.result(&jti).await.deploy.unwrap().commit.unwrap();
    let jti = host.deploy(json!({ "commit": resolved })).await;
    let result = host.controller.result(&jti).await;
    let deployed = result.deploy.unwrap();
    assert_eq!((result.outcome, deployed.changed, deployed.before), (Outcome::Succeeded, true, None));
    assert_eq!((deployed.commit, host.read("version").as_str()), (Some(resolved), "one"));

    fs::write(host.root.join("srv/app/version"), "edited").unwrap();
    host.commit("two");
    let result = host.controller.result(&host.deploy(json!({})).await).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(1)));
    assert!(result.reason.unwrap().ends_with("was changed by hand: version"));
    host.agent.stop().await;
    // Their reports are gone.
    assert_eq!(fs::read_dir(host.root.join("data/deploys")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cancelled_release_is_taken_back() {
    let host = Host::new("").await;
    let releases = |activate: &str| json!({ "strategy": { "releases": { "activate": [activate] } } });
    let jti = host.deploy(releases("true")).await;
    let first = host.controller.result(&jti).await.deploy.unwrap();
    host.commit("two");
    let started = host.root.join("started");
    let jti = host.deploy(releases(&format!("touch {}; sleep 600", started.display()))).await;
    eventually(PATIENCE, "the hook", async || started.exists().then_some(())).await;
    host.controller.cancel(&host.agent.id, &jti).await;
    let result = host.controller.result(&jti).await;
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert_eq!(result.deploy.unwrap().rolled_back_to, first.release);
    assert_eq!(host.read("current/version"), "one");
    host.agent.stop().await;
}

#[tokio::test]
async fn a_sealed_token_is_opened_for_its_own_message_alone() {
    let host = Host::new("").await;
    let backend = Backend::start(host.root.clone(), "git", TOKEN);
    let sealing = host.controller.state().hellos.last().unwrap().sealing_key.clone();
    let message = |bound_to: Option<&AgentId>| {
        let mut message = host.message(json!({ "repository": format!("{}/origin/.git", backend.url) }));
        let jti: Jti = message["jti"].as_str().unwrap().parse().unwrap();
        let agent = bound_to.unwrap_or(&host.agent.id);
        let binding = Binding { jti: &jti, agent, field: Credential::FIELD };
        let sealed = seal(TOKEN.as_bytes(), &sealing, binding).unwrap();
        message["credential"] = json!({ "kind": "https_token", "sealed": sealed });
        message
    };
    let jti = host.send(&message(None)).await;
    let result = host.controller.result(&jti).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{:?}", String::from_utf8_lossy(&result.stderr));
    assert_eq!(*backend.leaks.lock().unwrap(), Vec::<String>::new());
    assert!(*backend.served.lock().unwrap() > 0);

    let other: AgentId = "b".repeat(40).parse().unwrap();
    let jti = host.send(&message(Some(&other))).await;
    host.refuses(&jti, "Exec: the credential was not sealed to this host").await;
    let mut moved = message(None);
    moved["jti"] = json!(Jti::generate());
    let jti = host.send(&moved).await;
    host.refuses(&jti, "Exec: the credential was not sealed to this host").await;
    let mut many = message(None);
    many["aud"] = json!([host.agent.id, other]);
    let jti = host.send(&many).await;
    host.refuses(&jti, "Unsupported: the credential is for exactly one host").await;

    let said = format!("{:?}", host.controller.state().events);
    assert!(!holds(said.as_bytes(), TOKEN));
    host.agent.stop().await;
    assert_eq!(
        seen_in_files(host.dir.path(), TOKEN),
        Vec::<PathBuf>::new(),
        "journal, mirror, configuration"
    );
}

#[tokio::test]
async fn the_hosts_own_policy_counts() {
    let host = Host::new("shell = 'off'\nusers = ['root']\n").await;
    let hook = json!({ "strategy": { "releases": { "build": ["true"] } } });
    for (change, why) in [
        (json!({ "path": "/srv/app" }), "Policy: /srv/app is below none of this host's deploy roots"),
        (json!({ "user": "nobody" }), "Policy: the user \"nobody\" is not among"),
        (hook, "Policy: hooks and health commands are shell commands"),
        (json!({ "path": "/srv/../etc/app" }), "Unsupported"),
        (json!({ "repository": "ext::sh -c id" }), "Unsupported"),
        (json!({ "commit": null }), "Unsupported: the commit is missing"),
    ] {
        let jti = host.deploy(change).await;
        host.refuses(&jti, why).await;
    }
    fs::create_dir_all(host.root.join("srv")).unwrap();
    std::os::unix::fs::symlink("/etc", host.root.join("srv/link")).unwrap();
    let jti = host.deploy(json!({ "path": host.root.join("srv/link/app") })).await;
    host.refuses(&jti, "which leads to /etc/app and so is below none").await;
    assert!(!Path::new("/etc/app").exists());
    let jti = host.deploy(json!({})).await;
    assert_eq!(host.controller.result(&jti).await.outcome, Outcome::Succeeded);
    host.agent.stop().await;
}

#[tokio::test]
async fn a_deployment_needs_its_approval_and_looking_needs_none() {
    let keys = tempfile::tempdir().unwrap();
    let alice = SshKey::ed25519(keys.path(), "alice");
    let approvers = format!("[approvers]\ncount = 1\nallowed_signers = 'alice {}'\n", alice.public);
    let host = Host::new(&approvers).await;
    let began = now();
    eventually(PATIENCE, "the next second", async || (now() > began).then_some(())).await;
    let jti = host.deploy(json!({})).await;
    host.refuses(&jti, "this host needs 1 approvals (of alice), and it came without").await;
    let jti = host.deploy(json!({ "phase": "resolve", "commit": null })).await;
    assert_eq!(host.controller.result(&jti).await.outcome, Outcome::Succeeded);

    let approved = |message: &Value, change: Value| {
        let deploy: Deploy = serde_json::from_value(message.clone()).unwrap();
        let agents = vec![host.agent.id.clone()];
        let statement = Statement::of_deploy(&deploy, "bob", deploy.exp, agents).unwrap().to_bytes().unwrap();
        let signatures = vec![alice.sign(NAMESPACE, &statement, &[])];
        let approval = Approval { statement, approvers: Vec::new(), signatures };
        let mut message = message.clone();
        message["approval"] = serde_json::to_value(approval).unwrap();
        message.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        message
    };
    let message = host.message(json!({}));
    let other = json!({ "commit": "c".repeat(40), "jti": Jti::generate() });
    let jti = host.send(&approved(&message, other)).await;
    host.refuses(&jti, "the message differs from what was approved: commit").await;
    let good = approved(&message, json!({}));
    let jti = host.send(&good).await;
    assert_eq!(host.controller.result(&jti).await.outcome, Outcome::Succeeded);
    let jti = host.send(&approved(&message, json!({ "jti": Jti::generate() }))).await;
    host.refuses(&jti, "this approval was used before").await;
    host.agent.stop().await;
}

#[tokio::test]
async fn heartbeats_tell_how_deployed_paths_stand() {
    let host = Host::new("").await;
    let path = |name: &str| host.root.join("srv").join(name);
    let releases = json!({ "releases": { "shared": ["config.d"], "build": ["echo built > version"] } });
    let deploy = async |name: &str, strategy: Value| {
        let jti = host.deploy(json!({ "path": path(name), "strategy": strategy })).await;
        host.controller.result(&jti).await.deploy.unwrap().commit.unwrap()
    };
    let commit = deploy("tree", json!("in_place")).await;
    deploy("app", releases.clone()).await;
    let told = async |test: &dyn Fn(&[signet_common::deploy::Standing]) -> bool| {
        host.controller.heartbeat(|heartbeat| test(&heartbeat.deploys)).await.deploys
    };
    let good = told(&|deploys| deploys.len() == 2).await;
    assert!(
        good.iter().all(|s| !s.edited && s.commit.as_ref() == Some(&commit) && s.deployed == commit),
        "{good:?}"
    );

    fs::write(path("tree").join("version"), "edited").unwrap();
    fs::write(path("app").join("current/version"), "edited").unwrap();
    fs::write(path("app").join("current/config.d/own"), "not in the repository").unwrap();
    // The next deployment has it look.
    deploy("other", json!("in_place")).await;
    let differs = |name: &str, deploys: &[signet_common::deploy::Standing]| {
        deploys.iter().any(|s| s.path.as_str() == path(name).to_str().unwrap() && s.edited)
    };
    let found = told(&|deploys| differs("tree", deploys) && differs("app", deploys)).await;
    assert!(found[0].edited && found[1].edited && !found[2].edited, "what differs comes first: {found:?}");

    // So does the next start.
    let Host { dir, root, controller, agent } = host;
    agent.stop().await;
    fs::remove_dir_all(root.join("srv/tree")).unwrap();
    let policy = Policy::default().find(Some(&root.join("policy.toml")), &root).unwrap();
    let config = AgentConfig { policy, ..config(&controller, &root.join("data")) };
    let agent = Agent::start(&controller, config).await;
    let gone =
        |heartbeat: &signet_common::messages::Heartbeat| heartbeat.deploys.iter().any(|s| s.commit.is_none());
    controller.heartbeat(gone).await;
    assert!(!root.join("srv/tree").exists(), "nobody made it again");
    agent.stop().await;
    drop(dir);
}
