//! A real `sshd` on loopback, with accounts of its own: it runs in a mount namespace where `/etc/passwd`, `/etc/shadow` and
//! `/srv` are others, so that the machine keeps its own. That takes root.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ssh::SshKey;
use crate::{not_ran, ran};

/// An account of a server.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it logs in with, if it has one.
    pub password: Option<&'a str>,
    /// The public line of a key that may log in.
    pub key: Option<&'a str>,
}

/// A server, heard on 127.0.0.1 to 127.0.0.10. Dropped, it is gone.
pub struct Sshd {
    dir: tempfile::TempDir,
    child: Child,
    /// Where it listens.
    pub port: u16,
    srv: Option<PathBuf>,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The accounts' ids begin here.
const FIRST_ID: u32 = 41_000;
const START_SECONDS_MAX: u64 = 20;
/// As `scripts/test` counts it.
const PART: &str = "sshd";

fn program() -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let found = path.split(':').map(|dir| Path::new(dir).join("sshd")).find(|file| file.exists());
    found.expect("sshd is there; scripts/setup installs it")
}

impl Sshd {
    /// Whether this user may start one.
    #[must_use]
    pub fn possible() -> bool {
        let root = fs::read_to_string("/proc/self/status")
            .is_ok_and(|text| text.lines().any(|line| line.starts_with("Uid:\t0\t")));
        if !root {
            not_ran(PART);
            eprintln!("not root: an sshd with accounts of its own can't be started");
        }
        root
    }

    /// Starts one with these accounts and an empty `/srv`, to which anybody may write.
    #[must_use]
    pub fn start(accounts: &[Account<'_>]) -> Self {
        Self::start_on(accounts, None)
    }

    /// Starts one with these accounts and this directory as `/srv`.
    #[must_use]
    pub fn start_on(accounts: &[Account<'_>], srv: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("others may look in");
        let mut passwd = fs::read_to_string("/etc/passwd").expect("accounts");
        let mut shadow = fs::read_to_string("/etc/shadow").expect("passwords");
        passwd.push_str(&format!("sshd:x:{FIRST_ID}:{FIRST_ID}::/run/sshd:/usr/sbin/nologin\n"));
        for (index, account) in accounts.iter().enumerate() {
            let id = FIRST_ID + 1 + u32::try_from(index).expect("few accounts");
            let home = at(account.name);
            fs::create_dir(&home).expect("a home");
            // The tests' repositories are another user's.
            fs::write(home.join(".gitconfig"), "[safe]\n\tdirectory = *\n").expect("git's settings");
            chown(&home, Some(id), Some(id)).expect("one's own home");
            let hash = account.password.map_or("*".to_owned(), hashed);
            passwd.push_str(&format!("{0}:x:{id}:{id}::{1}:/bin/sh\n", account.name, home.display()));
            shadow.push_str(&format!("{}:{hash}:19000:0:99999:7:::\n", account.name));
            fs::write(at(&format!("{}.keys", account.name)), account.key.unwrap_or_default()).expect("keys");
        }
        fs::write(at("passwd"), passwd).expect("accounts");
        fs::write(at("shadow"), shadow).expect("passwords");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        drop(SshKey::ed25519(dir.path(), "host"));
        let child = run(dir.path(), port, srv);
        ran(PART);
        Self { dir, child, port, srv: srv.map(Path::to_owned) }
    }

    /// Starts it again on the same port with another key, as a machine that was replaced.
    pub fn replace_key(&mut self) {
        self.stop();
        for name in ["host", "host.pub"] {
            fs::remove_file(self.dir.path().join(name)).expect("the old key goes");
        }
        drop(SshKey::ed25519(self.dir.path(), "host"));
        self.child = run(self.dir.path(), self.port, self.srv.as_deref());
    }

    /// A path as the server sees it.
    #[must_use]
    pub fn sees(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.child.id()))
    }

    fn stop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

fn hashed(password: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["passwd", "-6", "-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    child.stdin.take().expect("an input").write_all(password.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("a text").trim().to_owned()
}

fn run(dir: &Path, port: u16, srv: Option<&Path>) -> Child {
    let at = |name: &str| dir.join(name).display().to_string();
    let mut settings = format!("Port {port}\n");
    (1..=10).for_each(|n| settings.push_str(&format!("ListenAddress 127.0.0.{n}\n")));
    settings.push_str(&format!(
        "HostKey {}\nPidFile none\nUsePAM no\nPasswordAuthentication yes\nKbdInteractiveAuthentication no\n\
         StrictModes no\nMaxStartups 100\nAuthorizedKeysFile {}/%u.keys\n",
        at("host"),
        dir.display()
    ));
    fs::write(dir.join("settings"), settings).expect("settings");
    let script = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/shadow\" /etc/shadow && \
        mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && \
        if test \"$3\"; then mount --bind \"$3\" /srv; else mount -t tmpfs -o mode=1777 tmpfs /srv; fi && \
        exec \"$2\" -D -e -f \"$1/settings\"";
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(dir)
        .arg(program())
        .arg(srv.unwrap_or(Path::new("")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("log")).expect("a log"))
        .spawn()
        .expect("unshare runs");
    let until = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(Instant::now() < until, "sshd did not start: {log}");
        std::thread::yield_now();
    }
    child
}
