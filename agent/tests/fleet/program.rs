//! The agent's program itself.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signet_agent::limits::HELLO_TIMEOUT;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// Starts it with no more environment than is given.
fn start(dir: &Path, controller: &str, env: &[(&str, &Path)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signet-agent"));
    command.args([
        "--controller",
        controller,
        "--hostname",
        "web1",
        "--join-token",
        "development",
        "--data-dir",
    ]);
    command.arg(dir).env_clear().envs(env.iter().copied()).stderr(Stdio::piped()).spawn().unwrap()
}

fn terminate(child: &Child) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
}

#[tokio::test]
async fn a_controller_that_never_answers_does_not_hold_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut child = start(dir.path(), &url, &[]);
    let (mut asked, _) = listener.accept().await.unwrap();
    asked.read_u8().await.unwrap();
    let asked_to_stop = Instant::now();
    terminate(&child);
    tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(asked_to_stop.elapsed() < HELLO_TIMEOUT / 2, "{:?}", asked_to_stop.elapsed());
}

#[tokio::test]
async fn a_certificate_from_the_systems_store_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    fs::create_dir(&store).unwrap();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(dir.path()).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let make = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out store/own.pem -days 2 -subj /CN=own \
                -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1";
    let make = make.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(openssl(&make).status().unwrap().success());
    // The names under which OpenSSL looks for certificates.
    assert!(openssl("rehash store").status().unwrap().success());
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    // Answers every request with a page about the connection.
    let serve = format!("s_server -quiet -accept {port} -cert store/own.pem -key key.pem -www");
    let mut server = openssl(&serve).spawn().unwrap();

    let url = format!("https://127.0.0.1:{port}");
    let mut child = start(&dir.path().join("agent"), &url, &[("SSL_CERT_DIR", store.as_path())]);
    let said = std::io::BufReader::new(child.stderr.take().unwrap());
    let found = tokio::task::spawn_blocking(move || {
        let mut lines = std::io::BufRead::lines(said).map_while(Result::ok);
        let deadline = Instant::now() + Duration::from_secs(60);
        // Before it listens, nobody can reach it.
        lines.find(|line| {
            line.contains("no nonce") || line.contains("certificate") || Instant::now() > deadline
        })
    });
    let found = found.await.unwrap();
    terminate(&child);
    child.wait().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(found.as_ref().is_some_and(|line| line.contains("no nonce")), "{found:?}");
}

#[test]
fn the_policy_can_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    let key = signet_testkit::ssh::SshKey::ed25519(dir.path(), "alice");
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet-agent"));
        command.args(["policy", "check", "--data-dir"]).arg(dir.path()).args(arguments).env_clear();
        let answer = command.output().unwrap();
        let text = String::from_utf8(answer.stdout).unwrap();
        let error = String::from_utf8(answer.stderr).unwrap();
        (answer.status.code(), serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default(), error)
    };
    let (code, answer, error) = ask(&["reboot"]);
    assert_eq!((code, &answer["allowed"]), (Some(0), &true.into()), "{error}");

    let policy = format!(
        "users = ['deploy']\nargv = [['ls', '-*']]\nshell = 'off'\n\
         [approvers]\ncount = 1\nallowed_signers = 'alice {}'\n",
        key.public
    );
    fs::write(dir.path().join("policy.toml"), policy).unwrap();
    let (code, answer, _) = ask(&["--user", "deploy", "--argv", "ls", "-l"]);
    assert_eq!((code, &answer["approvals"], &answer["approvers"][0]), (Some(0), &1.into(), &"alice".into()));
    assert_eq!(answer["file"], dir.path().join("policy.toml").to_str().unwrap());
    let (code, answer, _) = ask(&["--user", "root", "--argv", "ls", "-l"]);
    assert_eq!(code, Some(1));
    assert_eq!(answer["reason"], "the user \"root\" is not among this host's users");
    let (code, answer, _) = ask(&["reboot", "--user", "deploy"]);
    assert_eq!((code, &answer["reason"]), (Some(1), &"this host runs no shell commands".into()));

    fs::write(dir.path().join("policy.toml"), "[approvers]\ncount = 1\nallowed_signers = '* ssh'").unwrap();
    let (code, _, error) = ask(&["reboot"]);
    assert!(code == Some(1) && error.contains("allowed_signers, line 1: exactly one person"), "{error}");
}

#[test]
fn the_policy_can_be_asked_about_deployments() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let key = signet_testkit::ssh::SshKey::ed25519(dir.path(), "alice");
    let ask = |path: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet-agent"));
        command.args(["policy", "check-deploy", "https://git.example.com/app", "--data-dir"]).arg(&root);
        let answer = command.arg("--path").arg(root.join(path)).args(arguments).env_clear().output().unwrap();
        let text = String::from_utf8(answer.stdout).unwrap();
        (answer.status.code(), serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default())
    };
    let refused = |path: &str, arguments: &[&str], why: &str| {
        let (code, answer) = ask(path, arguments);
        assert_eq!((code, &answer["allowed"]), (Some(1), &false.into()), "{answer}");
        assert!(answer["reason"].as_str().unwrap().contains(why), "{answer}");
    };
    refused("srv/app", &[], "is below none of this host's deploy roots");

    fs::create_dir(root.join("srv")).unwrap();
    std::os::unix::fs::symlink("/etc", root.join("srv/out")).unwrap();
    let policy = |more: &str| {
        let text = format!("users = ['deploy']\ndeploy_roots = [{:?}]\n{more}", root.join("srv"));
        fs::write(root.join("policy.toml"), text).unwrap();
    };
    policy("");
    let user = ["--user", "deploy"];
    let hook = ["--user", "deploy", "--releases", "--build", "make"];
    let (code, answer) = ask("srv/app", &hook);
    assert_eq!((code, &answer["allowed"], &answer["user"]), (Some(0), &true.into(), &"deploy".into()));
    assert_eq!((&answer["approvals"], answer.get("reason")), (&0.into(), None));
    refused("srv/app", &["--user", "root"], "the user \"root\" is not among this host's users");
    refused("other/app", &user, "is below none of this host's deploy roots");
    refused("srv/out/app", &user, "which leads to /etc/app and so is below none");
    refused("srv/app", &["--user", "deploy", "--releases", "--build", ""], "a hook is empty");

    policy("shell = 'off'\n");
    assert_eq!(ask("srv/app", &user).0, Some(0));
    refused("srv/app", &hook, "this host runs not just any");
    refused("srv/app", &["--user", "deploy", "--releases", "--health-command", "true"], "health commands");
    refused("srv/app", &["--user", "deploy", "--filters"], "filters run the programs");
    let probe = ["--user", "deploy", "--releases", "--health-url", "http://127.0.0.1/"];
    assert_eq!(ask("srv/app", &probe).0, Some(0));

    policy(&format!("[approvers]\ncount = 1\nallowed_signers = 'alice {}'\n", key.public));
    let (code, answer) = ask("srv/app", &user);
    assert_eq!((code, &answer["approvals"], &answer["approvers"][0]), (Some(0), &1.into(), &"alice".into()));
    // What could be no message is a mistake of whoever asks.
    for bad in
        [&["--path", "srv/app"][..], &["--path", "/srv/../etc"], &["--path", "/srv/app", "--build", "x"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet-agent"));
        command.args(["policy", "check-deploy", "https://git.example.com/app"]).args(bad);
        assert_eq!(command.output().unwrap().status.code(), Some(2), "{bad:?}");
    }
}
