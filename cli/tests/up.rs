//! `signet up` and the command line against it: the real binary, on SQLite and the in-process bus.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what goes wrong fails the test, with its reason"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signet_common::keyring::KeyringBody;
use signet_common::trail::Line;
use tempfile::TempDir;

#[path = "up/approvals.rs"]
mod approvals;
#[path = "up/ci.rs"]
mod ci;
#[path = "up/deployments.rs"]
mod deployments;
#[path = "up/deploys.rs"]
mod deploys;
#[path = "up/jobs.rs"]
mod jobs;
#[path = "up/repositories.rs"]
mod repositories;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A home directory of its own, so that neither token nor data of whoever runs the tests is touched.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().join("signet")
    }

    fn signet(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet"));
        let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SIGNET_"));
        ours.for_each(|(name, _)| {
            command.env_remove(name);
        });
        command.env("XDG_DATA_HOME", self.0.path()).env_remove("PORT").stdin(Stdio::null());
        // Nobody listens there: what goes to this machine must not go through a proxy.
        command.env("http_proxy", "http://127.0.0.1:9");
        command
    }

    fn up(&self, listen: &str, args: &[&str]) -> Up {
        Self::up_as(self.signet(), listen, args)
    }

    /// As [`Home::up`], with a command that was prepared.
    fn up_as(mut command: Command, listen: &str, args: &[&str]) -> Up {
        command.args(["up", "--listen", listen, "--hostname", "box"]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("the ready line").unwrap();
            if let Some(url) = line.strip_prefix("signet: ready on ") {
                break url.to_owned();
            }
            said.push(line);
        };
        Up { child, said, url }
    }
}

/// A running `signet up`, killed when a test ends.
struct Up {
    child: Child,
    said: Vec<String>,
    url: String,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Up {
    fn listen(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn command(&self, home: &Home, args: &[&str]) -> Command {
        let mut command = home.signet();
        command.env("SIGNET_URL", &self.url).args(args);
        command
    }

    fn signet(&self, home: &Home, args: &[&str]) -> Output {
        self.command(home, args).output().unwrap()
    }

    fn json(&self, home: &Home, args: &[&str]) -> Value {
        let output = self.signet(home, &[&["--output", "json"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        send(&self.child, signal);
        ended(&mut self.child)
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn ended(child: &mut Child) -> ExitStatus {
    until("the end of a process", || child.try_wait().unwrap())
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> (i32, String, String) {
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The audit trail's export, and the first version of the keyring in it.
fn exported(up: &Up, home: &Home) -> (String, KeyringBody) {
    let export = text(&up.signet(home, &["audit", "export"]).stdout);
    let first: Line = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    let Line::Keyring(chain) = first else { panic!("no keyring") };
    (export, serde_json::from_slice(&chain[0].envelope().unwrap().body).unwrap())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

mod sqlite_memory {
    use super::*;

    #[test]
    fn a_first_start_answers_its_own_command_and_leaves_a_token() {
        let home = Home::new();
        let mut up = home.up("127.0.0.1:0", &["--group", "web"]);
        assert_eq!(up.said.len(), 1, "{:?}", up.said);
        assert!(up.said[0].starts_with("signet: box: Linux "), "{:?}", up.said);
        for secret in ["admin.token", "master.key"] {
            assert_eq!(mode(&home.data_dir().join(secret)), 0o600, "{secret}");
        }
        let servers = up.json(&home, &["servers"]);
        assert_eq!((&servers[0]["hostname"], &servers[0]["group"]), (&"box".into(), &"web".into()));
        assert_eq!(servers[0]["status"], "online");
        let tasks = up.json(&home, &["tasks"]);
        assert_eq!((&tasks[0]["command"], &tasks[0]["status"]), (&"uname -sr".into(), &"done".into()));
        let health = up.signet(&home, &["doctor", "box"]);
        assert!(health.status.success(), "{}", text(&health.stdout));
        assert_eq!(up.signal(Signal::SIGTERM).code(), Some(0));
    }

    #[test]
    fn an_exit_code_tells_how_it_went() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let run = |args: &[&str]| code(&up.signet(&home, &[&["run"], args].concat()));
        assert_eq!(run(&["box", "--", "echo out; echo err >&2"]), (0, "out\n".into(), "err\n".into()));
        let words = ["--", "printf", "%s|", "a b", "$x"];
        assert_eq!(run(&[&["box", "--argv"], &words[..]].concat()), (0, "a b|$x|".into(), String::new()));
        assert_eq!(run(&[&["box"], &words[..]].concat()), (0, "a b|$x|".into(), String::new()));
        assert_eq!(run(&["@default", "--env", "A=b", "--", "echo $A"]).1, "b\n");
        assert_eq!(run(&["box", "--", "exit 3"]), (1, String::new(), "box: exit 3\n".into()));
        assert_eq!(run(&["box", "--timeout", "1", "--", "sleep 60"]).0, 1);
        assert_eq!(run(&["box"]).0, 2);
        let (refused, _, why) = run(&["nobody", "--", "true"]);
        assert!(refused == 3 && why.contains("404"), "{why}");
        let stranger = Home::new();
        let (refused, _, why) = code(&up.signet(&stranger, &["servers"]));
        assert!(refused == 3 && why.contains("SIGNET_TOKEN"), "{why}");
        let nobody = code(&home.signet().args(["--url", "http://127.0.0.1:1", "servers"]).output().unwrap());
        assert!(nobody.0 == 3 && nobody.2.contains("can't be reached"), "{}", nobody.2);
        let mut cat = up.command(&home, &["run", "box", "--stdin", "--", "cat"]);
        let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cat.stdin.take().unwrap().write_all("täxt".as_bytes()).unwrap();
        assert_eq!(cat.wait_with_output().unwrap().stdout, "täxt".as_bytes());
    }

    #[test]
    fn the_audit_trail_is_checked_with_nothing_but_a_key() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        assert_eq!(code(&up.signet(&home, &["run", "box", "--", "true"])).0, 0);
        let shown = up.json(&home, &["audit", "--action", "command.run"]);
        assert_eq!((&shown[0]["who"], &shown[0]["new"]["command"]), (&"admin".into(), &"true".into()));
        until("the last entry's block", || {
            up.json(&home, &["audit", "verify"])["unsealed"].as_u64().filter(|unsealed| *unsealed == 0)
        });
        let file = |name: &str, bytes: &[u8]| {
            let path = home.0.path().join(name);
            fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (exit, printed, _) = code(&up.signet(&home, &["audit", "verify"]));
        assert!(exit == 0 && printed.contains("the trail is whole"), "{printed}");
        let (export, keyring) = exported(&up, &home);
        let (key, heads) = (file("key.pem", keyring.current.as_bytes()), file("heads", printed.as_bytes()));
        drop(up);
        // Nobody answers any more.
        let verify = |export: &str| {
            let export = file("trail.jsonl", export.as_bytes());
            let args = ["audit", "verify", &export, "--key", &key, "--head", &heads];
            code(&home.signet().args(args).output().unwrap())
        };
        let (exit, printed, why) = verify(&export);
        assert!(exit == 0 && printed.contains("1 kept heads were found again"), "{printed}{why}");
        let (exit, printed, _) = verify(&export.replace("uname -sr", "uname -ar"));
        assert!(exit == 1 && printed.contains("NOT WHOLE"), "{printed}");
        let lines: Vec<&str> = export.lines().collect();
        let last = lines.iter().rposition(|line| line.starts_with(r#"{"block""#)).unwrap();
        let (exit, printed, _) = verify(&lines[..last].join("\n"));
        assert!(exit == 1 && printed.contains("cut off"), "{printed}");
    }

    #[test]
    fn a_task_is_proven_without_a_controller() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let bundle_of = |args: &[&str]| {
            up.signet(&home, &[&["run", "box"], args].concat());
            let id = up.json(&home, &["tasks"])[0]["task_id"].as_str().unwrap().to_owned();
            text(&up.signet(&home, &["task", "bundle", &id]).stdout)
        };
        let (plain, secret) =
            (bundle_of(&["--", "exit 3"]), bundle_of(&["--env", "A=planted-secret", "--", "true"]));
        let fingerprint = up.json(&home, &["keys"])["controller"].as_str().unwrap().to_owned();
        drop(up);
        let verify = |bundle: &str| {
            let file = home.0.path().join("bundle.json");
            fs::write(&file, bundle).unwrap();
            let args = ["--output", "json", "verify", file.to_str().unwrap(), "--fingerprint", &fingerprint];
            let output = home.signet().args(args).output().unwrap();
            (output.status.code().unwrap(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
        };
        let (exit, proven) = verify(&plain);
        assert_eq!((exit, &proven["command"]), (0, &"exit 3".into()), "{proven}");
        let target = &proven["targets"][0];
        assert_eq!((&target["state"], &target["exit_code"]), (&"failed".into(), &3.into()));
        assert_eq!(target["by"], "agent");
        let (exit, proven) = verify(&secret);
        assert_eq!((exit, &proven["withheld"]), (0, &1.into()), "{proven}");
        assert!(!secret.contains("planted-secret"));
        let (exit, proven) = verify(&plain.replacen('A', "B", 1));
        assert_eq!((exit, &proven["proven"]), (1, &false.into()));
    }

    /// The commands of `docs/proof.md`, as they stand there.
    #[test]
    fn a_bundle_is_checked_with_openssl_alone() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        up.signet(&home, &["run", "box", "--", "echo done"]);
        let id = up.json(&home, &["tasks"])[0]["task_id"].as_str().unwrap().to_owned();
        let bundle = text(&up.signet(&home, &["task", "bundle", &id]).stdout);
        let (_, keys) = exported(&up, &home);
        drop(up);
        let document = include_str!("../../docs/proof.md");
        let (_, script) = document.rsplit_once("```sh\n").unwrap();
        let (script, _) = script.split_once("```").unwrap();
        let run = |bundle: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("bundle.json"), bundle).unwrap();
            fs::write(dir.path().join("controller.pem"), &keys.current).unwrap();
            code(&Command::new("sh").args(["-c", script]).current_dir(dir.path()).output().unwrap())
        };
        let (exit, printed, why) = run(&bundle);
        assert_eq!((exit, printed.matches("Verified OK").count()), (0, 3), "{printed}{why}");
        let (exit, printed, _) = run(&bundle.replacen("\"sig\":\"", "\"sig\":\"AAAA", 1));
        assert!(exit != 0 && !printed.contains("Verified OK"), "{printed}");
    }

    #[test]
    fn results_of_an_open_task_are_no_success() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let asked = up.json(&home, &["run", "box", "--no-wait", "--timeout", "60", "--", "sleep 60"]);
        let id = asked["task_id"].as_str().unwrap();
        let (exit, _, why) = code(&up.signet(&home, &["results", id]));
        assert!(exit == 4 && why.contains("not every host"), "{why}");
        assert!(up.signet(&home, &["cancel", id]).status.success());
        let began = Instant::now();
        while code(&up.signet(&home, &["results", id])).0 != 1 {
            assert!(began.elapsed() < PATIENCE, "it is never cancelled");
        }
    }

    #[test]
    fn the_doctor_tells_that_the_database_is_away() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let body = r#"{"detail":"the database is not reachable"}"#;
                let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length";
                write!(stream, "{head}: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        let home = Home::new();
        let url = format!("http://{address}");
        let answer = home.signet().args(["--url", &url, "--token", "t", "doctor", "web1"]).output().unwrap();
        let (exit, said, why) = code(&answer);
        assert!(exit == 1 && said.contains("controller") && said.contains("not reachable"), "{said} {why}");
    }

    #[test]
    fn output_is_bytes_for_a_pipe_and_objects_for_a_program() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let printed = up.signet(&home, &["run", "box", "--", r"printf '\033[2J\377\000x'"]);
        assert_eq!(printed.stdout, b"\x1b[2J\xff\0x");
        let result = up.json(&home, &["run", "box", "--", "echo hi"]);
        let told = (&result["stdout"], &result["exit_code"], &result["state"]);
        assert_eq!(told, (&"hi\n".into(), &0.into(), &"succeeded".into()));
        let id = result["task_id"].as_str().unwrap();
        assert_eq!(up.json(&home, &["task", id])["targets"][0]["state"], "succeeded");
        assert_eq!(up.json(&home, &["output", id, "box"])["stdout_base64"], "aGkK");
        assert_eq!(up.signet(&home, &["output", id, "box"]).stdout, b"hi\n");
        assert_eq!(text(&up.signet(&home, &["results", id]).stdout), "box:\nhi\n");
        let asked = ["run", "box", "--no-wait", "--idempotency-key", "k", "--", "true"];
        assert_eq!(up.json(&home, &asked)["task_id"], up.json(&home, &asked)["task_id"]);
        let version = up.signet(&home, &["--version"]);
        assert_eq!(text(&version.stdout), format!("signet {}\n", env!("CARGO_PKG_VERSION")));
        assert!(text(&up.signet(&home, &["completions", "bash"]).stdout).contains("complete -F"));
    }

    #[test]
    fn several_hosts_are_folded_and_counted() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let token = fs::read_to_string(home.data_dir().join("admin.token")).unwrap();
        for host in ["web1", "web2"] {
            let body = serde_json::json!({"hostname": host, "ip": "192.0.2.1"}).to_string();
            let request = ureq::post(format!("{}/api/servers", up.url))
                .header("authorization", format!("Bearer {}", token.trim()));
            assert_eq!(request.content_type("application/json").send(&body).unwrap().status(), 201);
        }
        let (failed, out, summary) = code(&up.signet(&home, &["run", "all", "--", "echo 1; echo 2"]));
        assert_eq!((failed, out.as_str()), (1, "box:\n1\n2\nweb1, web2 (2): [rejected: no_agent]\n"));
        assert!(summary.starts_with("3 hosts: 1 succeeded, 2 failed"), "{summary}");
        let lines = up.signet(&home, &["--output", "json", "run", "all", "--", "true"]);
        assert_eq!(lines.status.code(), Some(1));
        let states: Vec<Value> =
            text(&lines.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(states.iter().filter(|r| r["state"] == "rejected").count(), 2);
        let (sick, found, _) = code(&up.signet(&home, &["doctor", "web1"]));
        assert!(sick == 1 && found.contains("web1 has no agent"), "{found}");
    }

    #[test]
    fn a_data_directory_and_a_port_are_used_once() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let (failed, _, why) = code(&home.signet().args(["up", "--listen", "127.0.0.1:0"]).output().unwrap());
        let pid = up.child.id().to_string();
        assert!(failed == 1 && why.contains("used by another") && why.contains(&pid), "{why}");
        let other = Home::new();
        let (failed, _, why) = code(&other.signet().args(["up", "--listen", up.listen()]).output().unwrap());
        assert!(failed == 1 && why.contains(up.listen()) && why.contains("in use"), "{why}");
        let named = other.signet().args(["up", "--hostname", "a_b"]).output().unwrap();
        assert_eq!(named.status.code(), Some(2));
    }

    #[test]
    fn everything_is_still_there_after_a_stop_and_after_a_crash() {
        let home = Home::new();
        let mut up = home.up("127.0.0.1:0", &[]);
        let first = up.json(&home, &["run", "box", "--", "echo 1"]);
        assert_eq!(up.signal(Signal::SIGINT).code(), Some(0));
        let mut up = home.up(up.listen(), &[]);
        assert_eq!(up.signal(Signal::SIGKILL).code(), None);
        let up = home.up(up.listen(), &[]);
        let id = first["task_id"].as_str().unwrap();
        assert_eq!(up.signet(&home, &["output", id, "box"]).stdout, b"1\n");
        assert_eq!(up.json(&home, &["servers"]).as_array().unwrap().len(), 1);
        assert_eq!(up.signet(&home, &["run", "box", "--", "echo 2"]).stdout, b"2\n");
    }

    #[test]
    fn a_run_follows_through_a_crash_of_the_controller() {
        let home = Home::new();
        let mut up = home.up("127.0.0.1:0", &[]);
        let started = home.0.path().join("started");
        let script = format!("touch {}; sleep 600", started.display());
        let mut run = up.command(&home, &["run", "box", "--timeout", "700", "--", &script]);
        let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("the command's start", || started.exists().then_some(()));
        up.signal(Signal::SIGKILL);
        let _up = home.up(up.listen(), &[]);
        let (failed, _, why) = code(&run.wait_with_output().unwrap());
        assert!(failed == 1 && why.contains("box: interrupted"), "{why}");
    }

    #[test]
    fn ctrl_c_cancels_a_run() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let started = home.0.path().join("started");
        let script = format!("touch {}; sleep 600", started.display());
        let mut run = up.command(&home, &["run", "box", "--timeout", "700", "--", &script]);
        let run = run.stderr(Stdio::piped()).spawn().unwrap();
        until("the command's start", || started.exists().then_some(()));
        send(&run, Signal::SIGINT);
        let (interrupted, _, why) = code(&run.wait_with_output().unwrap());
        assert!(interrupted == 130 && why.contains("box: cancelled"), "{why}");
        let tasks = up.json(&home, &["tasks", "--limit", "1"]);
        assert_eq!(tasks[0]["status"], "cancelled");
    }

    #[test]
    fn the_fleets_key_is_shown_rotated_and_revoked() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let first = up.json(&home, &["keys"]);
        let second = up.json(&home, &["keys", "rotate"]);
        assert_eq!((&second["version"], &second["previous"]), (&2.into(), &first["controller"]));
        let third = text(&up.signet(&home, &["keys", "revoke"]).stdout);
        assert!(third.contains("version 3") && third.contains("none is believed"), "{third}");
        assert!(up.signet(&home, &["run", "box", "--", "true"]).status.success());
    }

    #[test]
    fn a_join_command_is_one_line_and_its_token_can_be_taken_back() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        let args =
            ["join-command", "--group", "web", "--hostname", "web*", "--controller", "https://c.example"];
        let made = up.signet(&home, &[&args[..], &["--uses", "3", "--expires", "2h"]].concat());
        let (code, line, note) = code(&made);
        assert_eq!((code, line.lines().count()), (0, 1), "{line}{note}");
        let token = line.strip_prefix("printf %s '").and_then(|rest| rest.split_once('\'')).unwrap().0;
        let keys = up.json(&home, &["keys"]);
        assert_eq!(token.rsplit_once('.').unwrap().1, keys["controller"]);
        assert_eq!(keys["hosts"][0]["hostname"], "box");
        let id = token.split_once('.').unwrap().0;
        assert!(line.contains("--controller 'https://c.example'") && note.contains(id), "{line}{note}");

        let seen = up.json(&home, &["join-tokens"]);
        assert_eq!((&seen[0]["id"], &seen[0]["state"]), (&id.into(), &"open".into()));
        assert_eq!((&seen[0]["group"], &seen[0]["uses_left"]), (&"web".into(), &3.into()));
        assert!(up.signet(&home, &["join-tokens", "revoke", id]).status.success());
        assert_eq!(up.json(&home, &["join-tokens"])[0]["state"], "revoked");
        assert_eq!(up.signet(&home, &["join-tokens", "revoke", "none"]).status.code(), Some(3));
        assert_eq!(up.json(&home, &["agents", "pending"]), Value::Array(vec![]));
        // An address that only this machine reaches is worth a word.
        let local = up.signet(&home, &["join-command"]);
        assert!(local.status.success() && text(&local.stderr).contains("--controller"));
        // And that no host can use it here.
        assert!(note.contains("SIGNET_AMQP_URL"), "{note}");
    }

    #[test]
    fn a_pause_holds_work_and_shows() {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        assert!(text(&up.signet(&home, &["pause", "on", "lunch", "time"]).stderr).contains("lunch time"));
        let waiting = text(&up.signet(&home, &["run", "box", "--no-wait", "--", "true"]).stdout);
        for args in [&["servers"][..], &["tasks"], &["task", waiting.trim()]] {
            assert!(text(&up.signet(&home, args).stderr).contains("dispatch is paused"), "{args:?}");
        }
        assert_eq!(up.signet(&home, &["doctor", "box"]).status.code(), Some(1));
        assert_eq!(up.json(&home, &["task", waiting.trim()])["targets"][0]["state"], "waiting");
        let cancelled = text(&up.signet(&home, &["cancel", waiting.trim()]).stdout);
        assert!(cancelled.starts_with("1 cancelled"), "{cancelled}");
        assert_eq!(up.json(&home, &["pause", "off"])["paused"], false);
        assert!(up.signet(&home, &["run", "box", "--", "true"]).status.success());
    }

    #[test]
    fn a_policy_narrows_and_a_bad_one_stops_the_start() {
        let home = Home::new();
        let policy = home.0.path().join("policy.toml");
        let narrowed = ["--policy", policy.to_str().unwrap()];
        fs::write(&policy, "shell = \"of\"").unwrap();
        let bad = home
            .signet()
            .args(["up", "--listen", "127.0.0.1:0", "--hostname", "box"])
            .args(narrowed)
            .output();
        assert!(code(&bad.unwrap()).2.contains("policy.toml"));
        fs::write(&policy, "shell = \"off\"\nargv = [[\"echo\", \"*\"]]").unwrap();
        let up = home.up("127.0.0.1:0", &narrowed);
        let (failed, _, why) = code(&up.signet(&home, &["run", "box", "--", "echo a"]));
        assert!(failed == 1 && why.contains("rejected"), "{why}");
        assert_eq!(up.signet(&home, &["run", "box", "--argv", "--", "echo", "a"]).stdout, b"a\n");
    }
}
