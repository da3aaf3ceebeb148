//! `signet repositories`: the real binary against a real controller, and a search for the secrets that it was given.

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::approvals::{public, ssh_key};
use super::deploys::Site;
use super::{Home, Up, code, text};

const TOKEN: &str = "planted-t0ken-of-git";
const OTHER: &str = "planted-t0ken-by-pipe";
const UNKNOWN: &str = "0190d7a0-0000-7000-8000-00000000000a";

/// A controller, and all that was said by commands that asked it.
struct Desk {
    home: Home,
    up: Up,
    said: RefCell<String>,
}

impl Desk {
    fn start() -> Self {
        let home = Home::new();
        let up = home.up("127.0.0.1:0", &[]);
        Self { home, up, said: RefCell::default() }
    }

    fn file(&self, name: &str, bytes: &str) -> String {
        let path = self.home.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.up.command(&self.home, &[&["repositories"], args].concat());
        command.env("GIT_TOKEN", TOKEN);
        command
    }

    /// With this on standard input.
    fn piped(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let mut command = self.command(args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let said = code(&child.wait_with_output().unwrap());
        let mut all = self.said.borrow_mut();
        all.push_str(&said.1);
        all.push_str(&said.2);
        said
    }

    fn signet(&self, args: &[&str]) -> (i32, String, String) {
        self.piped(args, "")
    }

    fn done(&self, args: &[&str]) -> String {
        let (exit, said, why) = self.signet(args);
        assert_eq!((exit, why.as_str()), (0, ""), "{args:?}: {said}");
        said
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[&["--output", "json"], args].concat())).unwrap()
    }

    /// The exit code, and that the reason has this in it.
    fn fails(&self, exit: i32, why: &str, args: &[&str]) {
        let (code, said, told) = self.signet(args);
        assert!(code == exit && said.is_empty() && told.contains(why), "{args:?}: {code} {told}");
    }
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    below.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Lines of a private key's second half, where the secret is.
fn lines(key: &str) -> Vec<&str> {
    key.lines().filter(|line| !line.contains("PRIVATE KEY")).skip(2).collect()
}

#[test]
fn an_entry_is_added_shown_changed_and_removed_and_its_secret_is_never_seen() {
    let desk = Desk::start();
    let key = ssh_key(&desk.home, "deploy");
    let private = fs::read_to_string(&key).unwrap();
    let signer = fs::read_to_string(public(&key)).unwrap();
    let signers = desk.file("signers", &format!("# people\nann@example.com {signer}bob {signer}"));
    let hosts = desk.file("hosts", &format!("git.example.com {signer}"));
    let key = key.to_str().unwrap();

    // A key with its hosts, for all below an address; signers too.
    let team = "git@git.example.com:team/";
    let both = desk.done(&["add", team, "--deploy-key", key, "--known-hosts", &hosts, "--signers", &signers]);
    assert!(both.starts_with(&format!("{team}: deploy key SHA256:")), "{both}");
    assert!(both.ends_with(", the signature of one of 2 signers is needed\n"), "{both}");
    let shown = desk.done(&["show", team]);
    for line in
        ["repository   git@git", "known hosts  git.example.com ssh-ed25519 ", "\n             bob ssh-"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    // Tokens: from a variable, and by a pipe with its line end.
    let app = "https://git.example.com/team/app";
    let said = desk.done(&["add", app, "--token-env", "GIT_TOKEN"]);
    assert_eq!(said, format!("{app}: token of git, no signature is needed\n"));
    let other = "https://git.example.com/other/";
    let by_pipe = ["add", other, "--token-stdin", "--token-user", "ci", "--output", "json"];
    let (exit, made, why) = desk.piped(&by_pipe, &format!("{OTHER}\n"));
    assert_eq!((exit, why.as_str()), (0, ""));
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["credential"], json!({ "kind": "https_token", "username": "ci" }));

    let listed = desk.done(&[]);
    let rows: Vec<&str> = listed.lines().collect();
    assert!(rows[0].starts_with("ID ") && rows.len() == 4 && !listed.contains('\x1b'), "{listed}");
    assert!(rows.iter().any(|row| row.contains(other) && row.contains("token of ci")), "{listed}");
    assert_eq!(desk.json(&[]).as_array().unwrap().len(), 3);
    assert_eq!(desk.json(&["show", other]), made);

    // By its id or its address; what is not named stays.
    let id = made["id"].as_str().unwrap();
    let said = desk.done(&["set", id, "--signers", &signers]);
    assert!(said.contains("token of ci, the signature of one of 2"), "{said}");
    let said = desk.done(&["set", other, "--no-credential"]);
    assert!(said.contains("nothing opens it, the signature of one of 2"), "{said}");
    let changed = desk.json(&["set", team, "--deploy-key", key, "--no-signers"]);
    assert_eq!(changed["allowed_signers"], Value::Null);
    assert!(
        changed["credential"]["known_hosts"].as_str().unwrap().starts_with("git.example.com "),
        "{changed}"
    );
    assert_eq!(desk.done(&["remove", app]), format!("{app} is removed\n"));
    assert_eq!(desk.done(&["remove", id]), format!("{id} is removed\n"));
    assert_eq!(desk.json(&[]).as_array().unwrap().len(), 1);

    // The trail has all of it, with the secrets nowhere.
    let trail = desk.up.signet(&desk.home, &["audit", "export"]);
    let said = format!("{}{}", desk.said.borrow(), text(&trail.stdout));
    assert!(said.contains("repository.add") && said.contains(team), "{said}");
    let mut secrets = lines(&private);
    assert!(secrets.len() > 1, "an Ed25519 key has more lines than those of its public half");
    secrets.extend([TOKEN, OTHER]);
    let Desk { home, up, .. } = desk;
    drop(up);
    for secret in secrets {
        assert!(!said.contains(secret), "{secret}: {said}");
        for file in files(&home.data_dir()) {
            let bytes = fs::read(&file).unwrap();
            let there = bytes.windows(secret.len()).any(|some| some == secret.as_bytes());
            assert!(!there, "{secret} is in {}", file.display());
        }
    }
}

#[test]
fn what_is_wrong_is_named_by_its_option_and_no_secret_is_repeated() {
    let desk = Desk::start();
    let key = ssh_key(&desk.home, "deploy");
    let private = fs::read_to_string(&key).unwrap();
    let locked = ssh_key(&desk.home, "locked");
    let lock = ["-q", "-p", "-P", "", "-N", "planted-phrase", "-f"];
    let done = Command::new("ssh-keygen").args(lock).arg(&locked).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let public = public(&key);
    let (key, locked, public) = (key.to_str().unwrap(), locked.to_str().unwrap(), public.to_str().unwrap());
    let nobody = desk.file("nobody", "nobody\n");
    let large = desk.file("large", &"x".repeat(70_000));
    let (ssh, https) = ("git@git.example.com:team/app", "https://git.example.com/team/app");

    // A key that is none, or that nobody could open.
    desk.fails(3, "--deploy-key: must be a private key", &["add", ssh, "--deploy-key", public]);
    desk.fails(3, "--deploy-key: has a passphrase", &["add", ssh, "--deploy-key", locked]);
    desk.fails(2, "--deploy-key /nonexistent: ", &["add", ssh, "--deploy-key", "/nonexistent"]);
    desk.fails(2, "larger than 65536 bytes", &["add", ssh, "--deploy-key", &large]);
    desk.fails(2, "this is the key itself", &["add", ssh, "--deploy-key", &private]);
    desk.fails(
        3,
        "--known-hosts: must be lines",
        &["add", ssh, "--deploy-key", key, "--known-hosts", &nobody],
    );
    // A scan of a host that was away.
    let none = desk.file("none", "");
    desk.fails(
        3,
        "--known-hosts: must not be empty",
        &["add", ssh, "--deploy-key", key, "--known-hosts", &none],
    );
    let encoded = "planted".repeat(50);
    desk.fails(2, "--deploy-key (what was given): ", &["add", ssh, "--deploy-key", &encoded]);
    desk.fails(3, "--signers: line 1", &["add", ssh, "--signers", &nobody]);
    // What does not fit the address, and addresses that are refused.
    desk.fails(3, "--deploy-key: a deploy_key goes with SSH", &["add", https, "--deploy-key", key]);
    desk.fails(3, "--token-env: a deploy_key goes with SSH", &["add", ssh, "--token-env", "GIT_TOKEN"]);
    for bad in ["nonsense", "https://git.example.com/a/../b/", "https://u:planted-pass@git.example.com/x"] {
        desk.fails(3, "the repository's address", &["add", bad, "--token-env", "GIT_TOKEN"]);
    }
    // Tokens that are not there; who gives the token itself does not see it again.
    desk.fails(2, "--token-env: there is no NOT_THERE", &["add", https, "--token-env", "NOT_THERE"]);
    desk.fails(2, "--token-env: there is no variable", &["add", https, "--token-env", "planted-token"]);
    desk.fails(2, "--token-stdin: nothing is there", &["add", https, "--token-stdin"]);
    let (exit, _, why) = desk.piped(&["add", https, "--token-stdin"], "planted-one\nplanted-two\n");
    assert!(exit == 3 && why.contains("--token-stdin: must be one line"), "{why}");
    // What says nothing, or two things.
    for args in [
        &["add", https][..],
        &["set", UNKNOWN],
        &["add", https, "--token-env", "GIT_TOKEN", "--token-stdin"],
        &["add", https, "--known-hosts", &nobody, "--token-env", "GIT_TOKEN"],
        &["add", ssh, "--deploy-key", key, "--token-user", "ci"],
        &["set", UNKNOWN, "--no-credential", "--token-env", "GIT_TOKEN"],
        &["set", UNKNOWN, "--no-signers", "--signers", &nobody],
    ] {
        desk.fails(2, "--", args);
    }
    // Entries that are not there, and one that is there twice.
    for args in [&["show", UNKNOWN][..], &["remove", UNKNOWN], &["set", UNKNOWN, "--no-signers"]] {
        desk.fails(3, "404", args);
    }
    desk.fails(2, "no entry has this address", &["show", https]);
    desk.done(&["add", https, "--token-env", "GIT_TOKEN"]);
    desk.fails(3, "409", &["add", &format!("{https}.git"), "--token-env", "GIT_TOKEN"]);

    let said = desk.said.borrow();
    assert!(!said.contains("planted"), "{said}");
    assert!(lines(&private).iter().all(|line| !said.contains(line)), "{said}");
}

#[test]
fn a_deployment_keeps_to_what_an_entry_demands() {
    let site = Site::start();
    let key = ssh_key(&site.home, "ann");
    let signers = site.home.0.path().join("signers");
    fs::write(&signers, format!("ann {}", fs::read_to_string(public(&key)).unwrap())).unwrap();
    let (url, path) = (site.url(), site.home.0.path().join("srv/app"));
    let all = format!("{}/", url.rsplit_once('/').unwrap().0);
    let signet = |args: &[&str]| code(&site.up.signet(&site.home, args));
    let deploy = || signet(&["deploy", &url, "--to", "box", "--path", path.to_str().unwrap()]);
    let (exit, said, why) = signet(&["repositories", "add", &all, "--signers", signers.to_str().unwrap()]);
    assert!(exit == 0 && said.contains("the signature of its one signer is needed"), "{said}{why}");
    let (exit, log, _) = deploy();
    assert!(exit == 1 && log.contains("not signed by an allowed signer"), "{log}");
    assert_eq!(signet(&["repositories", "remove", &all]).0, 0);
    let (exit, log, why) = deploy();
    assert_eq!(exit, 0, "{log}{why}");
}

/// A terminal of its own, as `script` makes it.
#[test]
fn a_terminal_gets_colours_and_no_token_is_typed_there() {
    let desk = Desk::start();
    desk.done(&["add", "https://git.example.com/", "--token-env", "GIT_TOKEN"]);
    let on_terminal = |words: &str| {
        // It has no width of its own.
        let line = format!("stty cols 200; {} {words}", env!("CARGO_BIN_EXE_signet"));
        let mut terminal = Command::new("script");
        terminal.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        terminal.env("XDG_DATA_HOME", desk.home.0.path()).env("SIGNET_URL", &desk.up.url);
        for name in ["NO_COLOR", "SIGNET_TOKEN", "SIGNET_TOKEN_FILE"] {
            terminal.env_remove(name);
        }
        code(&terminal.output().unwrap())
    };
    let (exit, screen, _) = on_terminal("repositories");
    assert!(exit == 0 && screen.contains("\x1b[1mhttps://git.example.com/"), "{screen:?}");
    let (exit, screen, _) = on_terminal("repositories add https://h.example.com/x --token-stdin");
    assert!(exit == 2 && screen.contains("standard input is a terminal"), "{screen:?}");
}
