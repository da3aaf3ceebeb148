//! `signet deploy` and `signet job`: the real binary against a real controller and its agent.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Home, PATIENCE, Up, code, send, text, until};

/// A repository, a place to deploy to, and a controller whose only host is `box`, in the group `web`.
pub(super) struct Site {
    pub(super) home: Home,
    pub(super) up: Up,
}

pub(super) fn git(dir: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
    let done = Command::new("git").current_dir(dir).args(identity).args(arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    text(&done.stdout).trim().to_owned()
}

impl Site {
    pub(super) fn start() -> Self {
        let home = Home::new();
        let repo = home.0.path().join("git/org/app.git");
        fs::create_dir_all(&repo).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        fs::write(repo.join("file"), "one").unwrap();
        git(&repo, &["add", "-A"]);
        git(&repo, &["commit", "-q", "-m", "one"]);
        let policy = home.0.path().join("policy.toml");
        fs::write(&policy, format!("deploy_roots = [{:?}]\n", home.0.path().join("srv"))).unwrap();
        let mut command = home.signet();
        command.env("SIGNET_GIT_PROTOCOLS", "https,ssh,file");
        let args = ["--group", "web", "--policy", policy.to_str().unwrap()];
        let up = Home::up_as(command, "127.0.0.1:0", &args);
        Self { home, up }
    }

    pub(super) fn repo(&self) -> PathBuf {
        self.home.0.path().join("git/org/app.git")
    }

    pub(super) fn url(&self) -> String {
        format!("file://{}", self.repo().display())
    }

    pub(super) fn place(&self, name: &str) -> String {
        self.home.0.path().join("srv").join(name).display().to_string()
    }

    /// A server that has no agent: nothing can be deployed there.
    fn lonely(&self, host: &str) {
        let token = fs::read_to_string(self.home.data_dir().join("admin.token")).unwrap();
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().proxy(None).build());
        let request = agent.post(format!("{}/api/servers", self.up.url));
        let request = request.header("authorization", format!("Bearer {}", token.trim()));
        let body = json!({ "hostname": host, "ip": "192.0.2.1", "group": "web" }).to_string();
        assert_eq!(request.content_type("application/json").send(&body).unwrap().status(), 201);
    }

    fn command(&self, name: &str, to: &str, args: &[&str]) -> Command {
        let (url, path) = (self.url(), self.place(name));
        self.up.command(&self.home, &[&["deploy", &url, "--to", to, "--path", &path], args].concat())
    }

    pub(super) fn deploy(&self, name: &str, to: &str, args: &[&str]) -> Output {
        self.command(name, to, args).output().unwrap()
    }

    fn job(&self, args: &[&str]) -> Value {
        self.up.json(&self.home, &[&["job"], args].concat())
    }
}

#[test]
fn the_log_comes_line_by_line_and_the_exit_code_says_how_it_went() {
    let site = Site::start();
    let (exit, log, status) = code(&site.deploy("app", "box", &["--branch", "main"]));
    assert_eq!((exit, status.as_str()), (0, "job_1: SUCCESS\n"), "{log}");
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("PLAY [all] ***") && lines.contains(&"changed: [box]"), "{log}");
    assert!(!log.contains('\x1b'), "no colours in a pipe");
    assert_eq!(fs::read_to_string(Path::new(&site.place("app")).join("file")).unwrap(), "one");
    // For a program each line is an object.
    let mut again = site.command("app", "@web", &["--branch", "main"]);
    let (exit, log, status) = code(&again.args(["--output", "json"]).output().unwrap());
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(exit == 0 && lines.iter().any(|line| line["line"] == "ok: [box]"), "{log}{status}");
    let last = lines.last().unwrap();
    assert_eq!((&last["job_id"], &last["status"]), (&json!("job_2"), &json!("SUCCESS")));
    assert_eq!(last["commit"], git(&site.repo(), &["rev-parse", "HEAD"]));
    assert_eq!(last["targets"][0]["host"], "box");
    let (exit, log, status) = code(&site.deploy("app", "box", &["--branch", "nowhere"]));
    assert!(exit == 1 && status.contains("FAILED") && log.contains("fatal: [box]: FAILED!"), "{log}{status}");
    let (refused, _, why) = code(&site.deploy("app", "box", &["--branch", "--upload-pack=x"]));
    assert!(refused == 2, "{why}");
    let (refused, _, why) = code(&site.deploy("app", "nobody", &[]));
    assert!(refused == 3 && why.contains("--to nobody: is no enrolled host ("), "{why}");
    assert!(!why.contains("targets[") && why.contains("over SSH"), "{why}");
    assert_eq!(code(&site.deploy("app", "all", &[])).0, 2);
    assert_eq!(code(&site.deploy("app", "box", &["--keep", "3"])).0, 2, "--keep needs --releases");
    // What was asked for can be looked at afterwards.
    let listed = site.job(&["list", "--status", "Success"]);
    assert_eq!((listed.as_array().unwrap().len(), &listed[1]["job_id"]), (2, &json!("job_1")));
    assert_eq!(site.job(&["show", "job_1"])["targets"][0]["status"], "SUCCESS");
    let shown = text(&site.up.signet(&site.home, &["job", "show", "job_1"]).stdout);
    assert!(shown.contains("SUCCESS") && shown.contains("box"), "{shown}");
    let logs = text(&site.up.signet(&site.home, &["job", "logs", "job_1"]).stdout);
    assert!(logs.starts_with("PLAY [all]") && logs.contains("PLAY RECAP"), "{logs}");
    let followed = code(&site.up.signet(&site.home, &["job", "logs", "--follow", "job_1"]));
    assert_eq!((followed.0, followed.1), (0, logs));
    let (exit, _, status) = code(&site.up.signet(&site.home, &["job", "retry", "job_1"]));
    assert!(exit == 0 && status.contains("SUCCESS"), "{status}");
    assert_eq!(code(&site.up.signet(&site.home, &["job", "cancel", "job_1"])).0, 3, "it is over");
}

#[test]
fn a_job_goes_back_and_demands_what_it_is_told_to() {
    let site = Site::start();
    let one = git(&site.repo(), &["rev-parse", "HEAD"]);
    assert_eq!(code(&site.deploy("app", "box", &["--branch", "main"])).0, 0);
    fs::write(site.repo().join("file"), "two").unwrap();
    git(&site.repo(), &["commit", "-q", "-a", "-m", "two"]);
    assert_eq!(code(&site.deploy("app", "box", &["--branch", "main", "--submodules"])).0, 0);
    let file = || fs::read_to_string(Path::new(&site.place("app")).join("file")).unwrap();
    assert_eq!(file(), "two");
    let (exit, log, status) = code(&site.up.signet(&site.home, &["job", "rollback", "job_2", &one]));
    assert!(exit == 0 && log.contains("PREFLIGHT") && status == "job_3: SUCCESS\n", "{log}{status}");
    assert_eq!(file(), "one");
    let (exit, _, why) = code(&site.up.signet(&site.home, &["job", "rollback", "job_2", "main"]));
    assert!(exit == 2 && why.contains("at least 7 characters"), "{why}");
    // Nobody whom the file names signed it.
    let signers = site.home.0.path().join("signers");
    fs::write(
        &signers,
        "a@example.com namespaces=\"git\" ssh-ed25519 \
        AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti\n",
    )
    .unwrap();
    let (exit, log, _) = code(&site.deploy("other", "box", &["--signers", signers.to_str().unwrap()]));
    assert!(exit == 1 && log.contains("not signed by an allowed signer"), "{log}");
    let (exit, _, why) = code(&site.deploy("other", "box", &["--signers", "/nonexistent"]));
    assert!(exit == 2 && why.contains("--signers /nonexistent"), "{why}");
    // A token comes from the environment, and only goes where it fits.
    let (exit, _, why) = code(&site.deploy("other", "box", &["--token-env", "NOT_THERE"]));
    assert!(exit == 2 && why.contains("NOT_THERE"), "{why}");
    let mut with = site.command("other", "box", &["--token-env", "GIT_TOKEN"]);
    let (exit, _, why) = code(&with.env("GIT_TOKEN", "t0ken-of-mine").output().unwrap());
    assert!(exit == 3 && why.contains("--token-env: ") && !why.contains("t0ken-of-mine"), "{why}");
}

#[test]
fn a_canary_that_fails_leaves_the_others_as_they_are() {
    let site = Site::start();
    site.lonely("web1");
    let options = ["--canary", "web1", "--pause", "1h", "--order", "reverse", "--max-failures", "5"];
    let (exit, log, status) = code(&site.deploy("app", "@web", &options));
    assert!(exit == 1 && log.contains("canary web1 failed: 1 host is skipped"), "{log}{status}");
    assert_eq!(status, "job_1: FAILED (canary web1 failed: 1 host is skipped)\n");
    assert!(!Path::new(&site.place("app")).exists());
    let shown = site.job(&["show", "job_1"]);
    assert_eq!(
        (&shown["canary"], &shown["pause"], &shown["order"]),
        (&json!(["web1"]), &json!(3600), &json!("reverse"))
    );
    let (refused, _, why) = code(&site.deploy("app", "@web", &["--canary", "web9"]));
    assert!(refused == 3 && why.contains("--canary web9: is none of the targets"), "{why}");
    let (refused, _, why) = code(&site.deploy("app", "@web", &["--batch", "1", "--serial"]));
    assert!(refused == 2, "{why}");
}

#[test]
fn releases_are_made_as_the_options_say() {
    let site = Site::start();
    let options = ["--releases", "--keep", "2", "--shared", "logs", "--build", "echo built > built"];
    let more = ["--activate", "true", "--health-command", "test -f built", "--timeout", "5m", "--force"];
    let (exit, log, status) = code(&site.deploy("app", "box", &[&options[..], &more].concat()));
    assert_eq!(exit, 0, "{log}{status}");
    let current = Path::new(&site.place("app")).join("current");
    assert_eq!(fs::read_to_string(current.join("built")).unwrap(), "built\n");
    let shown = site.job(&["show", "job_1"]);
    assert_eq!((&shown["releases"]["keep"], &shown["timeout"]), (&json!(2), &json!(300)));
    assert_eq!(shown["releases"]["health"]["probe"]["command"], "test -f built");
    let (exit, log, _) =
        code(&site.deploy("app", "box", &["--releases", "--force", "--health-command", "false"]));
    assert!(exit == 1 && current.join("built").exists(), "it is back: {log}");
}

#[test]
fn who_does_not_wait_gets_the_id_and_who_waits_too_long_an_exit_code() {
    let site = Site::start();
    let begun = site.home.0.path().join("begun");
    let hook = format!("touch {}; sleep 600", begun.display());
    let slow = ["--releases", "--build", &hook];
    let (exit, id, _) = code(&site.deploy("app", "box", &[&slow[..], &["--no-wait"]].concat()));
    assert_eq!((exit, id.as_str()), (0, "job_1\n"));
    until("the hook's start", || begun.exists().then_some(()));
    let waits = ["--wait", "1s", "--releases", "--build", "sleep 600", "--output", "json"];
    let (exit, log, why) = code(&site.deploy("other", "box", &waits));
    assert!(exit == 4 && why.contains("job_2 goes on"), "{why}");
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((&last["job_id"], &last["targets"][0]["host"]), (&json!("job_2"), &json!("box")));
    let (exit, made, _) = code(&site.deploy("third", "box", &["--no-wait", "--output", "json"]));
    let made: Value = serde_json::from_str(made.trim_end()).unwrap();
    assert_eq!((exit, &made["job_id"], &made["targets"][0]["host"]), (0, &json!("job_3"), &json!("box")));
    for id in ["job_1", "job_2"] {
        let (exit, said, _) = code(&site.up.signet(&site.home, &["job", "cancel", id]));
        assert!(exit == 0 && said == format!("{id} is being cancelled\n"), "{said}");
        let (exit, _, status) = code(&site.up.signet(&site.home, &["job", "logs", "--follow", id]));
        assert!(exit == 1 && status.contains("CANCELLED"), "{status}");
    }
}

#[test]
fn ctrl_c_asks_once_to_cancel() {
    ends_by(Signal::SIGINT);
}

/// What build servers send.
#[test]
fn a_wish_to_end_is_one_to_cancel() {
    ends_by(Signal::SIGTERM);
}

/// What a terminal that closes sends.
#[test]
fn a_terminal_that_closes_cancels() {
    ends_by(Signal::SIGHUP);
}

fn ends_by(signal: Signal) {
    let site = Site::start();
    let begun = site.home.0.path().join("begun");
    let hook = format!("touch {}; sleep 600", begun.display());
    let mut deploy = site.command("app", "box", &["--releases", "--build", &hook]);
    let deploy = deploy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the hook's start", || begun.exists().then_some(()));
    send(&deploy, signal);
    let (exit, log, status) = code(&deploy.wait_with_output().unwrap());
    assert!(exit == 130 && status.contains("\njob_1: CANCELLED"), "{exit} {log}{status}");
    assert!(status.starts_with("asked job_1 to cancel; Ctrl-C again leaves it\n"), "{status}");
    assert!(log.contains("PLAY RECAP"), "the log is shown to its end: {log}");
    let trail = site.up.json(&site.home, &["audit", "--action", "job.cancel"]);
    assert_eq!(trail.as_array().unwrap().len(), 1);
}

/// A terminal of its own, as `script` makes it.
#[test]
fn a_terminal_gets_colours_and_a_line_that_moves() {
    let site = Site::start();
    let binary = env!("CARGO_BIN_EXE_signet");
    let (url, path, go) = (site.url(), site.place("app"), site.home.0.path().join("go"));
    let hook = format!("until test -e {}; do sleep 0.1; done", go.display());
    let words = format!("{binary} deploy {url} --to box --path {path} --releases --build '{hook}'");
    let mut terminal = Command::new("script");
    terminal.args(["-qefc", &words, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    terminal.env("XDG_DATA_HOME", site.home.0.path()).env("SIGNET_URL", &site.up.url);
    for name in ["NO_COLOR", "SIGNET_TOKEN", "SIGNET_TOKEN_FILE"] {
        terminal.env_remove(name);
    }
    let mut terminal = terminal.stdout(Stdio::piped()).spawn().unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let (mut shown, mut some) = (Vec::new(), [0; 4_096]);
    let begun = Instant::now();
    loop {
        let n = screen.read(&mut some).unwrap();
        shown.extend_from_slice(&some[..n]);
        let running = text(&shown).contains("0/1 hosts, 1 running");
        if running {
            fs::write(&go, "").unwrap();
        }
        if n == 0 || running {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "no line that moves: {:?}", text(&shown));
    }
    screen.read_to_end(&mut shown).unwrap();
    let shown = text(&shown);
    assert!(terminal.wait().unwrap().success(), "{shown}");
    assert!(shown.contains("\x1b[1mPLAY [all]") && shown.contains("\x1b[33mchanged: [box]"), "{shown:?}");
    assert!(shown.contains("\x1b[32mjob_1: SUCCESS"), "{shown:?}");
}

/// A controller that answers with what `answer` says to a request's first line.
fn controller(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                let header = header.trim().to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let (status, body) = answer(&first);
            let body = body.to_string();
            let head =
                format!("HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {}", body.len());
            write!(stream, "{head}\r\n\r\n{body}").unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn who_leaves_a_job_alone_still_gets_its_name() {
    let home = Home::new();
    let (looked, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (seen, cancelled) = (looked.clone(), asked.clone());
    let url = controller(move |request| {
        let job = json!({ "job_id": "job_7", "status": "RUNNING", "targets": [{ "host": "a" }] });
        if request.contains("/cancel ") {
            cancelled.store(true, Ordering::Relaxed);
        }
        if request.contains("/logs?") {
            seen.store(true, Ordering::Relaxed);
            return (200, json!({ "data": { "lines": [], "next_from_id": 0, "finished": false } }));
        }
        (200, json!({ "data": job }))
    });
    let words = ["--url", &url, "--token", "t", "deploy", "https://h/r", "--to", "a", "--path", "/srv/a"];
    let mut deploy = home.signet();
    deploy.args(words).args(["--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let deploy = deploy.spawn().unwrap();
    until("a look at the log", || looked.load(Ordering::Relaxed).then_some(()));
    send(&deploy, Signal::SIGINT);
    until("a wish to cancel", || asked.load(Ordering::Relaxed).then_some(()));
    // Two that come together are one.
    let begun = Instant::now();
    until("a moment", || (begun.elapsed() > Duration::from_millis(400)).then_some(()));
    send(&deploy, Signal::SIGINT);
    let (exit, log, why) = code(&deploy.wait_with_output().unwrap());
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((exit, &last["job_id"], &last["status"]), (130, &json!("job_7"), &json!("RUNNING")), "{why}");
}

#[test]
fn a_cancel_that_comes_too_late_is_no_error_nor_is_a_controller_that_restarts() {
    let home = Home::new();
    let (asked, over) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    // Each is answered at the second time.
    let (cancelled, shown) = (AtomicBool::new(false), AtomicBool::new(false));
    let away = || (503, json!({ "error": { "message": "it starts" } }));
    let looked = asked.clone();
    let url = controller(move |request| {
        let finished = over.load(Ordering::Relaxed);
        if request.starts_with("POST /api/v1/jobs/job_7/cancel ") {
            if !cancelled.swap(true, Ordering::Relaxed) {
                return away();
            }
            over.store(true, Ordering::Relaxed);
            (409, json!({ "error": { "message": "the job is already over" } }))
        } else if request.starts_with("POST /api/v1/jobs ") {
            (202, json!({ "data": { "job_id": "job_7", "status": "PENDING" } }))
        } else if request.contains("/logs?") {
            looked.store(true, Ordering::Relaxed);
            (200, json!({ "data": { "lines": [], "next_from_id": 0, "finished": finished } }))
        } else if finished && !shown.swap(true, Ordering::Relaxed) {
            away()
        } else {
            (200, json!({ "data": { "job_id": "job_7", "status": "SUCCESS", "targets": [] } }))
        }
    });
    let words = ["--url", &url, "--token", "t", "deploy", "https://h/r", "--to", "a", "--path", "/srv/a"];
    let mut deploy = home.signet();
    let deploy = deploy.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a look at the log", || asked.load(Ordering::Relaxed).then_some(()));
    send(&deploy, Signal::SIGINT);
    let (exit, _, status) = code(&deploy.wait_with_output().unwrap());
    assert_eq!((exit, status.as_str()), (0, "job_7: SUCCESS\n"));
}
