//! `signet-agent join` and `signet-agent leave`, as people on a host use them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use signet_testkit::Pair;

use super::agent::{Agent, program};
use super::support::TestApp;

/// Runs the program to its end with this data directory, without this machine's own settings.
async fn run(data: &Path, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(program());
    command.args(args).arg("--data-dir").arg(data).stdin(Stdio::null());
    ended(command).await
}

/// What `signet join-command` prints, for another data directory.
async fn pasted(data: &Path, token: &Path, controller: &str, hostname: &str) -> (bool, String) {
    let token = fs::read_to_string(token).unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "printf %s '{token}' | {} join --controller '{controller}' --join-token-file /dev/stdin --hostname {hostname} \
         --data-dir {}",
        program().display(),
        data.display(),
    ));
    ended(command).await
}

async fn ended(mut command: Command) -> (bool, String) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SIGNET_")) {
        command.env_remove(name);
    }
    let ended = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Output { status, stdout, stderr } = ended.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.success(), said)
}

/// The secret of a new token for one host of the group `web`, in a file.
async fn token(app: &TestApp, file: &Path) -> String {
    let made = app.post("/api/join-tokens", &json!({"group": "web", "hostname": "web*"})).await.expect(201);
    let text = made["token"].as_str().unwrap();
    fs::write(file, text).unwrap();
    text.split('.').nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_a_host_joins_with_a_token_works_and_leaves() {
    let app = TestApp::start(Pair::MariadbRabbitmq).await;
    let root = tempfile::tempdir().unwrap();
    let (file, data) = (root.path().join("token"), root.path().join("web1"));
    let secret = token(&app, &file).await;
    let join = |host: &'static str| {
        let (data, file) = (root.path().join(host), file.display().to_string());
        let base = app.base.clone();
        async move {
            run(&data, &["join", "--controller", &base, "--join-token-file", &file, "--hostname", host]).await
        }
    };
    let (joined, said) = join("db1").await;
    assert!(!joined && said.contains("no valid join token"), "{said}");
    let (joined, said) = pasted(&data, &file, &app.base, "web1").await;
    assert!(joined && said.contains("web1 has joined"), "{said}");
    let (joined, said) = join("web2").await;
    assert!(!joined && said.contains("no valid join token"), "{said}");
    // Who is in joins again without another use.
    let (joined, said) = join("web1").await;
    assert!(joined, "{said}");

    let noted = fs::read_to_string(data.join("enrolment.toml")).unwrap();
    assert!(noted.contains(&app.base) && !noted.contains(&secret), "{noted}");
    let mut agent = Agent::joined(&app, root.path(), "web1").await;
    assert_eq!(app.get("/api/servers/web1").await.expect(200)["group"], "web");

    let (left, said) = run(&data, &["leave"]).await;
    assert!(!left && said.contains("used by another agent"), "{said}");
    agent.stop().await;
    let (left, said) = run(&data, &["leave"]).await;
    assert!(left, "{said}");
    let known = app.get("/api/agents?standing=revoked").await.expect(200);
    assert_eq!(known[0]["hostname"], "web1");
    let still: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for gone in ["agent.key", "enrolment.toml", "keyring.json", "journal", "reserve"] {
        assert!(!still.iter().any(|name| name == gone), "{gone}: {still:?}");
    }
    let (left, said) = run(&data, &["leave"]).await;
    assert!(!left && said.contains("there is no agent"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_rabbitmq_nothing_is_forgotten_when_the_controller_does_not_hear_of_it() {
    let app = TestApp::start(Pair::MariadbRabbitmq).await;
    let root = tempfile::tempdir().unwrap();
    let (file, data) = (root.path().join("token"), root.path().join("web1"));
    token(&app, &file).await;
    let file = file.display().to_string();
    let join = ["join", "--controller", &app.base, "--join-token-file", &file, "--hostname", "web1"];
    let (joined, said) = run(&data, &join).await;
    assert!(joined, "{said}");
    let (left, said) = run(&data, &["leave", "--controller", "http://127.0.0.1:1"]).await;
    assert!(!left && said.contains("--untold"), "{said}");
    assert!(data.join("agent.key").exists() && data.join("enrolment.toml").exists());
    let (left, said) = run(&data, &["leave", "--untold"]).await;
    assert!(left && said.contains("signet agents revoke"), "{said}");
    assert!(!data.join("agent.key").exists());
    assert_eq!(app.get("/api/agents").await.expect(200)[0]["standing"], "accepted");
}
