//! Repositories that want a credential, deployed by real agents over RabbitMQ; and a search for where that is seen.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use signet_testkit::Pair;
use signet_testkit::ssh::SshKey;
use signet_testkit::sshd::{Account, Sshd};

use super::backend::{Backend, holds, seen_in_files};
use super::deploys::{Site, git, statuses};
use super::held_jobs::{asked, ended};
use super::support::TestApp;
use super::support::capturing_bus::CapturingBus;
use super::support::dump::dump;
use super::support::watched::{Log, Processes};
use super::visitor::Visitor;

/// What the search must find: it stands where it may be seen.
const LEAK: &str = "planted-leak";

/// A site where all that can be seen from outside is kept.
struct Watched {
    site: Site,
    bus: Arc<CapturingBus>,
    log: Log,
    processes: Processes,
}

impl Watched {
    /// Looks at everything from now on.
    async fn start() -> Self {
        let log = Log::keep();
        let parts = Pair::MariadbRabbitmq.parts().await;
        let bus = Arc::new(CapturingBus::new(parts.controller_bus().await));
        let app = TestApp::start_on(parts, bus.clone(), |settings| {
            settings.deploying.git_protocols.insert("http".into());
        })
        .await;
        let site = Site::on(app);
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(site.dir.path(), open).unwrap();
        std::os::unix::fs::symlink("repo", site.dir.path().join(LEAK)).unwrap();
        Self { site, bus, log, processes: Processes::watch() }
    }

    async fn knows(&self, body: Value) -> String {
        self.site.app.post("/api/repositories", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// Nothing of these secrets is seen anywhere, and the search finds the leak everywhere.
    async fn unseen(self, jobs: &[&Value], secrets: &[&str]) {
        let (site, app) = (&self.site, &self.site.app);
        let mut places = Vec::new();
        for path in ["/api/repositories", "/api/v1/jobs", "/api/audit?limit=1000"] {
            places.push(("answers", app.get(path).await.text.into_bytes()));
        }
        for job in jobs {
            let id = job["job_id"].as_str().unwrap();
            for path in ["", "/logs", "/logs?format=json"] {
                places
                    .push(("answers", app.get(&format!("/api/v1/jobs/{id}{path}")).await.text.into_bytes()));
            }
        }
        places.push(("database", dump(app.parts.database_url())));
        places.push(("messages", self.bus.seen()));
        places.push(("log", self.log.seen()));
        places.push(("processes", self.processes.seen()));
        for secret in secrets {
            for (place, bytes) in &places {
                assert!(!holds(bytes, secret), "it is seen in {place}");
            }
            for directory in [site.dir.path(), &app.running.app.settings.data_dir] {
                assert_eq!(seen_in_files(directory, secret), Vec::<std::path::PathBuf>::new());
            }
        }
        for wanted in ["answers", "database", "messages", "log", "processes"] {
            let found = places.iter().any(|(place, bytes)| *place == wanted && holds(bytes, LEAK));
            assert!(found, "the search finds nothing in {wanted}");
        }
    }
}

fn job(url: &str, place: &Path, change: Value) -> Value {
    let mut body = json!({ "git_repo": url, "git_branch": "main", "dest_path": place,
        "targets": [{ "host": "h1" }, { "host": "h2" }] });
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

fn why(job: &Value) -> &str {
    job["targets"][0]["reason"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_token_is_seen_by_the_server_alone() {
    let own = uuid::Uuid::new_v4().simple();
    let token: &'static str = Box::leak(format!("planted/\"t0ken&{own}").into_boxed_str());
    let other = format!("other+t0ken/{own}");
    let watched = Watched::start().await;
    let site = &watched.site;
    let backend = Backend::start(site.dir.path().canonicalize().unwrap(), LEAK, token);
    let (one, two) = tokio::join!(site.agent("h1"), site.agent("h2"));
    let url = format!("{}/{LEAK}/.git", backend.url);
    let credential = |token: &str| json!({ "kind": "https_token", "token": token, "username": LEAK });
    let known = watched.knows(json!({ "url": url, "credential": credential(token) })).await;
    let (first, log) = site.run(&job(&url, &site.place().join("a"), json!({ "batch": 1 }))).await;
    assert_eq!(statuses(&first), ["SUCCESS", "SUCCESS"], "{first} {log}");
    assert_eq!(std::fs::read_to_string(site.place().join("a/file")).unwrap(), "one");
    // The controller found the commit by itself, and each host got a message of its own.
    assert_eq!(site.app.number("SELECT COUNT(*) FROM messages").await, 2);
    // A wrong one is refused by the server, here and there.
    let wrong = json!({ "credential": credential(&other) });
    let (refused, _) = site.run(&job(&url, &site.place().join("b"), wrong)).await;
    assert_eq!(statuses(&refused), ["FAILED", "FAILED"], "{refused}");
    assert!(
        why(&refused).contains("neither the controller nor h1") && why(&refused).contains("Authentication"),
        "{refused}"
    );
    assert!(!site.place().join("b").exists());
    // With the job's own, when nothing is known any more; kept for its retry.
    assert_eq!(site.app.delete(&format!("/api/repositories/{known}")).await.status, 204);
    let own = json!({ "credential": credential(token), "batch": 1 });
    let (third, log) = site.run(&job(&url, &site.place().join("c"), own)).await;
    assert_eq!(statuses(&third), ["SUCCESS", "SUCCESS"], "{third} {log}");
    assert_eq!(third["credential"], "https_token");
    let path = format!("/api/v1/jobs/{}/retry?wait=60", third["job_id"].as_str().unwrap());
    let again = site.app.post(&path, &json!({})).await.expect(200);
    let (again, log) = site.shown(again["data"]["job_id"].as_str().unwrap()).await;
    assert_eq!(statuses(&again), ["SUCCESS", "SUCCESS"], "{again} {log}");
    // What waits for approval carries it once it is let go.
    let rule = json!({ "target": "all", "approvals": 1, "kinds": ["deploy"] });
    let rule = site.app.post("/api/approval-rules", &rule).await.expect(201);
    let bob = Visitor::new(&site.app, "bob", "operator").await;
    let own = json!({ "credential": credential(token), "batch": 1 });
    let (id, waits) = asked(site, &job(&url, &site.place().join("e"), own)).await;
    let path = format!("/api/approvals/{id}");
    let shown = bob.get(&site.app, &path).await.expect(200);
    assert_eq!(shown["message"]["credential"]["sealed"], true, "{shown}");
    let word = json!({ "digest": waits["approval"]["digest"] });
    bob.post(&site.app, &format!("{path}/approve"), &word).await.expect(200);
    let (held, log) = ended(site, &id).await;
    assert_eq!(statuses(&held), ["SUCCESS", "SUCCESS"], "{held} {log}");
    let path = format!("/api/approval-rules/{}", rule["id"].as_str().unwrap());
    assert_eq!(site.app.delete(&path).await.status, 204);
    let (nothing, _) = site.run(&job(&url, &site.place().join("d"), json!({}))).await;
    assert_eq!(statuses(&nothing), ["FAILED", "FAILED"], "{nothing}");
    assert!(*backend.served.lock().unwrap() > 0);
    assert_eq!(*backend.leaks.lock().unwrap(), Vec::<String>::new());
    drop((one, two));
    watched.unseen(&[&first, &refused, &third, &again, &held, &nothing], &[token, &other]).await;
}

/// What `ssh-keyscan` says of a server.
fn scanned(port: u16) -> String {
    let output = Command::new("ssh-keyscan").args(["-p", &port.to_string(), "127.0.0.1"]).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_deploy_key_is_seen_by_nobody() {
    if !Sshd::possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let key = SshKey::ed25519(dir.path(), "deploy");
    let middle = key.private().lines().nth(2).unwrap()[..40].to_owned();
    let watched = Watched::start().await;
    let site = &watched.site;
    let mut server = Sshd::start(&[Account { name: "git", password: None, key: Some(&key.public) }]);
    let (mut one, two) = tokio::join!(site.agent("h1"), site.agent("h2"));
    let origin = format!("ssh://git@127.0.0.1:{}", server.port);
    let url = format!("{origin}{}/{LEAK}", site.dir.path().display());
    let deploy_key =
        |hosts: Value| json!({ "kind": "deploy_key", "private_key": key.private(), "known_hosts": hosts });
    let hosts = scanned(server.port);
    watched.knows(json!({ "url": url, "credential": deploy_key(json!(hosts)) })).await;
    let (first, log) = site.run(&job(&url, &site.place().join("a"), json!({ "batch": 1 }))).await;
    assert_eq!(statuses(&first), ["SUCCESS", "SUCCESS"], "{first} {log}");
    assert_eq!(std::fs::read_to_string(site.place().join("a/file")).unwrap(), "one");
    assert_eq!(site.app.number("SELECT COUNT(*) FROM messages").await, 2);
    // Who is asked for the commit is one that is there.
    one.stop().await;
    let nowhere = json!({ "git_branch": "nowhere", "timeout": 120 });
    let (lost, _) = site.run(&job(&url, &site.place().join("b"), nowhere)).await;
    assert!(why(&lost).contains("neither the controller nor h2"), "{lost}");
    // A host with another key is not believed.
    server.replace_key();
    let alone = json!({ "targets": [{ "host": "h2" }] });
    let (refused, _) = site.run(&job(&url, &site.place().join("c"), alone.clone())).await;
    assert_eq!(statuses(&refused), ["FAILED"]);
    assert!(
        why(&refused).contains("erification failed") || why(&refused).contains("Could not read"),
        "{refused}"
    );
    drop((one, two));
    watched.unseen(&[&first, &lost, &refused], &[&middle]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_what_is_not_signed_is_not_deployed() {
    let app = TestApp::start_with(Pair::MariadbRabbitmq.parts().await, |settings| {
        settings.deploying.git_protocols.insert("file".into());
    })
    .await;
    let site = Site::on(app);
    let key = SshKey::ed25519(site.dir.path(), "signer");
    let _agent = site.agent("h1").await;
    let repo = site.dir.path().join("repo");
    let signers = format!("alice@example.com namespaces=\"git\" {}\n", key.public);
    let entry =
        json!({ "url": format!("file://{}/", site.dir.path().display()), "allowed_signers": signers });
    site.app.post("/api/repositories", &entry).await.expect(201);
    let mut body = job(&format!("file://{}", repo.display()), &site.place().join("a"), json!({}));
    body["targets"] = json!([{ "host": "h1" }]);
    let (refused, _) = site.run(&body).await;
    assert!(why(&refused).contains("not signed by an allowed signer"), "{refused}");
    let signing = format!("user.signingKey={}", site.dir.path().join("signer").display());
    let commit = ["commit", "-q", "--allow-empty", "-S", "-m", "signed"];
    git(&repo, &[&["-c", "gpg.format=ssh", "-c", &signing][..], &commit].concat());
    let (good, log) = site.run(&body).await;
    assert_eq!(statuses(&good), ["SUCCESS"], "{good} {log}");
}
