//! The system's git, with nothing of what could make it run something else.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::prctl::set_dumpable;
use signet_common::deploy::{CommitId, CredentialKind, Deploy, GitRef};

use super::plan::{Fault, Secret, shown};
use super::secrets::Memory;
use super::{PROXIES, REACH};
use crate::limits::{GIT_ANSWER_BYTES_MAX, GIT_COMPLAINTS_BYTES_MAX, PIPE_READ_BYTES};

/// What every git child keeps of the driver's environment, beside what leads it to a remote.
const KEPT: [&str; 5] = ["HOME", "USER", "LOGNAME", "PATH", "SIGNET_JTI"];
/// The first git that heeds `GIT_CONFIG_GLOBAL`, by its version's first two numbers.
const HEEDS_GLOBAL: (u32, u32) = (2, 32);
/// What no repository and no user's configuration may change.
const ALWAYS: [&str; 16] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "core.askPass=",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "protocol.ext.allow=never",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.autoDetach=false",
    "maintenance.autoDetach=false",
    "advice.detachedHead=false",
    // Only SSH signatures by the given signers count.
    "gpg.program=/bin/false",
    "gpg.openpgp.program=/bin/false",
    "gpg.x509.program=/bin/false",
    "gpg.ssh.program=ssh-keygen",
];

/// What git needs to reach a repository; dropped before any hook runs.
#[derive(Debug, Default)]
struct Access {
    configuration: Vec<String>,
    ssh: String,
    _files: Vec<Memory>,
}

/// What git gets to know of the user's own configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UsersOwn {
    /// All of it.
    Read,
    /// Nothing, by its own means.
    Left,
    /// Nothing, because it has no home: an older git knows no other means.
    Homeless,
}

/// Whether a git was ended by a signal, and may have left its locks.
pub(super) type Killed = Arc<AtomicBool>;

/// Starts git.
#[derive(Debug)]
pub(super) struct Git {
    configuration: Vec<String>,
    protocols: String,
    filters: bool,
    users_own: UsersOwn,
    looks: bool,
    guarded: bool,
    killed: Killed,
    access: Option<Access>,
}

/// Where git works.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// `.git`, or a bare repository.
    pub(super) directory: PathBuf,
    /// The working tree.
    pub(super) tree: Option<PathBuf>,
    /// Another index than the repository's own.
    pub(super) index: Option<PathBuf>,
}

impl Git {
    /// For one deployment. When `narrowed`, no configuration of the user's is read, by no version of git.
    ///
    /// # Errors
    /// No file in memory for the credential; or when `narrowed`, there is no git.
    pub(super) fn new(deploy: &Deploy, secret: Option<&Secret>, narrowed: bool) -> Result<Self, Fault> {
        proxies(|name| std::env::var(name).ok())?;
        let mut configuration = ALWAYS.map(str::to_owned).to_vec();
        // Those of the repository's own configuration, too; the deployment's credential comes after it.
        configuration.extend(narrowed.then(|| "credential.helper=".to_owned()));
        if let Some(origin) = deploy.repository.origin().filter(|_| deploy.repository.is_loopback()) {
            // A proxy reaches another loopback than ours, and would read what is said in plain here.
            configuration.push(format!("http.{origin}.proxy="));
        }
        let protocols: Vec<&str> = deploy.protocols.iter().map(|protocol| protocol.as_str()).collect();
        let mut git = Self {
            configuration,
            protocols: protocols.join(":"),
            filters: deploy.filters,
            users_own: if narrowed { UsersOwn::Homeless } else { UsersOwn::Read },
            looks: false,
            guarded: deploy.user.is_some(),
            killed: Killed::default(),
            access: Some(access(deploy, secret)?),
        };
        if narrowed && heeds_global(&git.run(None, &["--version"])?) {
            git.users_own = UsersOwn::Left;
        }
        Ok(git)
    }

    /// Whether one was ended by a signal, now or later.
    pub(super) fn killed(&self) -> Killed {
        Arc::clone(&self.killed)
    }

    /// From here on nothing is written, and no remote is reached.
    pub(super) fn only_look(&mut self) {
        self.looks = true;
        self.access = None;
    }

    /// From here on no remote is reached, and the credential is gone. Nor can what runs as the same user read it in what
    /// is left of it in this process's memory, when that is another user than the agent's.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn forget_credential(&mut self) -> Result<(), Fault> {
        self.access = None;
        if self.guarded {
            // Not before: git reads files in this process's memory through /proc.
            set_dumpable(false).map_err(Fault::of("this process's memory can't be guarded"))?;
        }
        Ok(())
    }

    fn command(&self, at: Option<&Repository>) -> Command {
        let mut command = Command::new("git");
        let kept = KEPT.iter().chain(&REACH);
        command.env_clear().envs(kept.filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", &self.protocols)
            .env("GIT_PROXY_COMMAND", "")
            .env("GIT_LITERAL_PATHSPECS", "1")
            // A commit is what its id says.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_OPTIONAL_LOCKS", if self.looks { "0" } else { "1" })
            .stdin(Stdio::null());
        match self.users_own {
            UsersOwn::Read => {}
            UsersOwn::Left => {
                command.env("GIT_CONFIG_GLOBAL", "/dev/null");
            }
            // Below what is no directory nobody can put anything.
            UsersOwn::Homeless => {
                command.env("HOME", "/dev/null");
            }
        }
        if let Some(at) = at {
            command.env("GIT_DIR", &at.directory);
            if let Some(tree) = &at.tree {
                command.env("GIT_WORK_TREE", tree).current_dir(tree);
            }
            if let Some(index) = &at.index {
                command.env("GIT_INDEX_FILE", index);
            }
        }
        for setting in &self.configuration {
            command.args(["-c", setting]);
        }
        if let Some(access) = &self.access {
            command.env("GIT_SSH_COMMAND", &access.ssh);
            for setting in &access.configuration {
                command.args(["-c", setting]);
            }
        }
        command
    }

    fn output(&self, at: Option<&Repository>, arguments: &[&str]) -> Result<Output, Fault> {
        self.bounded(self.command(at).args(arguments).stderr(Stdio::piped()), &[])
    }

    fn bounded(&self, command: &mut Command, expected: &'static [&'static str]) -> Result<Output, Fault> {
        let output = bounded(command, expected).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Fault::new("there is no git on this host"),
            _ => Fault::new(format!("git can't be executed: {error}")),
        })?;
        if output.status.code().is_none() {
            self.killed.store(true, Ordering::Relaxed);
        }
        Ok(output)
    }

    /// What git writes to its standard output.
    ///
    /// # Errors
    /// Its last words, when it fails.
    pub(super) fn run(&self, at: Option<&Repository>, arguments: &[&str]) -> Result<String, Fault> {
        said(&self.output(at, arguments)?, arguments)
    }

    /// The same, where some complaints are no news for a person: lines that have one of the `expected` in them stay out of
    /// the log, and are told by the fault alone.
    ///
    /// # Errors
    /// Its last words, when it fails.
    pub(super) fn attempt(
        &self,
        at: &Repository,
        arguments: &[&str],
        expected: &'static [&'static str],
    ) -> Result<String, Fault> {
        let mut command = self.command(Some(at));
        said(&self.bounded(command.args(arguments).stderr(Stdio::piped()), expected)?, arguments)
    }

    /// What it writes, when it succeeds. What it complains about is not shown: a no is an answer.
    ///
    /// # Errors
    /// It can't be executed.
    pub(super) fn ask(&self, at: &Repository, arguments: &[&str]) -> Result<Option<String>, Fault> {
        let output = self.bounded(self.command(Some(at)).args(arguments).stderr(Stdio::null()), &[])?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Switches off the filters that the user's configuration or this repository's names, such as Git LFS.
    ///
    /// # Errors
    /// git's.
    pub(super) fn disable_filters(&mut self, at: &Repository) -> Result<(), Fault> {
        if self.filters || !may_have_filters(&at.directory) {
            return Ok(());
        }
        // It fails when it finds none.
        let there = Some(at).filter(|at| at.directory.join("HEAD").exists());
        let found = self.output(there, &["config", "--name-only", "--get-regexp", "^filter\\."])?;
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        let mut names: Vec<&str> =
            found.lines().filter_map(|key| Some(key.strip_prefix("filter.")?.rsplit_once('.')?.0)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            for setting in ["clean=", "smudge=", "process=", "required=false"] {
                self.configuration.push(format!("filter.{name}.{setting}"));
            }
        }
        Ok(())
    }

    /// Demands that the commit, or the tag `reference` that leads to it, is signed by one of these signers.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn verify(
        &self,
        at: &Repository,
        commit: &CommitId,
        reference: Option<&GitRef>,
        signers: &str,
    ) -> Result<(), Fault> {
        let file = Memory::holding(signers)?;
        let setting = format!("gpg.ssh.allowedSignersFile={}", file.path());
        let good = |arguments: &[&str]| {
            let all: Vec<&str> = ["-c", &setting].into_iter().chain(arguments.iter().copied()).collect();
            self.ask(at, &all).map(|said| said.is_some())
        };
        if good(&["verify-commit", commit.as_str()])? {
            return Ok(());
        }
        if let Some(reference) = reference {
            let tag = format!("refs/tags/{}", reference.as_str().trim_start_matches("refs/tags/"));
            let leads = self.ask(at, &["rev-parse", "--verify", "--quiet", &format!("{tag}^{{commit}}")])?;
            if leads.is_some_and(|leads| leads.trim() == commit.as_str()) && good(&["verify-tag", &tag])? {
                return Ok(());
            }
        }
        Err(Fault::new(format!("commit {commit} is not signed by an allowed signer")))
    }
}

/// Whether the git that says this of its version can be told to leave the user's configuration alone.
fn heeds_global(said: &str) -> bool {
    let mut numbers = said.strip_prefix("git version ").unwrap_or_default().split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= HEEDS_GLOBAL,
        _ => false,
    }
}

/// What a git wrote that succeeded.
fn said(output: &Output, arguments: &[&str]) -> Result<String, Fault> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let name = arguments.iter().find(|argument| !argument.starts_with('-')).unwrap_or(&"");
    Err(Fault::new(format!("git {name} failed: {}", last_words(output))))
}

/// Runs a program and keeps the begin of what it answers and the end of its complaints. Those go into the log as they
/// come, line by line, but for the `expected`.
fn bounded(command: &mut Command, expected: &'static [&'static str]) -> io::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let complaints = child.stderr.take();
    let complaints = thread::Builder::new()
        .spawn(move || complaints.map_or_else(Vec::new, |from| last_of(from, expected)))?;
    let mut stdout = Vec::new();
    if let Some(mut answer) = child.stdout.take() {
        answer.by_ref().take(GIT_ANSWER_BYTES_MAX).read_to_end(&mut stdout)?;
        if io::copy(&mut answer, &mut io::sink())? > 0 {
            // Only whole lines.
            stdout.truncate(stdout.iter().rposition(|byte| *byte == b'\n').unwrap_or_default());
        }
    }
    Ok(Output { status: child.wait()?, stdout, stderr: complaints.join().unwrap_or_default() })
}

fn last_of(complaints: impl Read, expected: &[&str]) -> Vec<u8> {
    let (mut kept, mut said) = (Vec::new(), Vec::new());
    let mut complaints = BufReader::new(complaints);
    while let Ok(1..) = complaints.by_ref().take(PIPE_READ_BYTES as u64).read_until(b'\n', &mut said) {
        let line = String::from_utf8_lossy(&said);
        if !expected.iter().any(|part| line.contains(part)) {
            io::stderr().write_all(&said).ok();
        }
        kept.append(&mut said);
        kept.drain(..kept.len().saturating_sub(GIT_COMPLAINTS_BYTES_MAX));
    }
    kept
}

fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = lines().rfind(|line| line.starts_with("fatal:") || line.starts_with("error:"));
    let told = told.or_else(|| lines().next_back()).map_or_else(|| output.status.to_string(), str::to_owned);
    // Names of files that it complains about.
    let named: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix('\t')).collect();
    if named.is_empty() { told } else { format!("{told} {}", shown(named.into_iter())) }
}

/// Whether a configuration may define filters: most have none, and one process less is started.
fn may_have_filters(repository: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let users = home.into_iter().flat_map(|home| [home.join(".gitconfig"), home.join(".config/git/config")]);
    users.chain([repository.join("config")]).any(|file| match fs::read(&file) {
        Ok(text) => {
            let text = text.to_ascii_lowercase();
            [&b"[filter"[..], b"[include"].iter().any(|part| text.windows(part.len()).any(|w| w == *part))
        }
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    })
}

fn access(deploy: &Deploy, secret: Option<&Secret>) -> Result<Access, Fault> {
    const SSH: &str = "ssh -oBatchMode=yes -oForwardAgent=no -oClearAllForwardings=yes -oPermitLocalCommand=no \
                       -oControlMaster=no -oControlPath=none -oConnectTimeout=30";
    let plain = |ssh: String| Access { ssh, ..Access::default() };
    let (Some(credential), Some(secret)) = (&deploy.credential, secret) else {
        return Ok(plain(format!("{SSH} -oStrictHostKeyChecking=accept-new")));
    };
    match credential.kind {
        CredentialKind::DeployKey => {
            let key = Memory::holding(&format!("{}\n", secret.reveal().trim_end()))?;
            let mut ssh =
                format!("{SSH} -F/dev/null -oIdentitiesOnly=yes -oIdentityAgent=none -i{}", key.path());
            let mut files = vec![key];
            match &credential.known_hosts {
                None => ssh += " -oStrictHostKeyChecking=accept-new",
                Some(known) => {
                    let known = Memory::holding(&format!("{}\n", known.trim_end()))?;
                    ssh +=
                        " -oStrictHostKeyChecking=yes -oGlobalKnownHostsFile=/dev/null -oUserKnownHostsFile=";
                    ssh += &known.path();
                    files.push(known);
                }
            }
            Ok(Access { ssh, _files: files, ..Access::default() })
        }
        CredentialKind::HttpsToken => {
            let user = credential.username.as_deref().unwrap_or("git");
            let text = secret.reveal();
            if text.contains(['\n', '\r', '\0']) {
                return Err(Fault::new("the credential has a line break in it"));
            }
            let file = Memory::holding(&format!("username={user}\npassword={text}\n"))?;
            let origin = deploy.repository.origin().unwrap_or_default();
            // For this host alone: one to which it redirects gets nothing.
            let helper = format!("!f() {{ test \"$1\" = get && cat {}; }}; f", file.path());
            let configuration =
                vec!["credential.helper=".to_owned(), format!("credential.{origin}.helper={helper}")];
            Ok(Access { configuration, ..Access { _files: vec![file], ..plain(SSH.to_owned()) } })
        }
    }
}

/// Refuses a proxy whose address git could not read: git would complain of it in full, with its password.
fn proxies(environment: impl Fn(&str) -> Option<String>) -> Result<(), Fault> {
    let unreadable = |address: &str| {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        rest.rsplit_once('@').is_some_and(|(user, _)| user.contains(['/', '?', '#']))
    };
    let bad = PROXIES.into_iter().find(|name| environment(name).is_some_and(|value| unreadable(&value)));
    match bad {
        None => Ok(()),
        Some(name) => Err(Fault::new(format!(
            "the user or password of the proxy in {name} of the agent's environment has a character that must be \
             percent-encoded"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_can_be_told() {
        for (said, heeds) in [
            ("git version 2.47.3\n", true),
            ("git version 2.39.3 (Apple Git-146)\n", true),
            ("git version 2.32.0-rc1\n", true),
            ("git version 2.31.8\n", false),
            ("git version 2.30.2\n", false),
            ("git version 1.99.0\n", false),
            ("git version 3.0.0\n", true),
            ("git version next\n", false),
            ("", false),
        ] {
            assert_eq!(heeds_global(said), heeds, "{said}");
        }
    }

    #[test]
    fn no_more_is_kept_than_is_of_use() {
        let mut command = Command::new("sh");
        let talk =
            "yes answer | head -c 17000000; yes complaint | head -c 1000000 >&2; echo 'fatal: x' >&2; exit 1";
        let output = bounded(command.arg("-c").arg(talk).stderr(Stdio::piped()), &[]).unwrap();
        assert!(output.stdout.len() as u64 <= GIT_ANSWER_BYTES_MAX && output.stdout.ends_with(b"\nanswer"));
        assert_eq!(output.stderr.len(), GIT_COMPLAINTS_BYTES_MAX);
        assert_eq!(last_words(&output), "fatal: x");
    }

    #[test]
    fn a_proxy_that_git_could_not_read_is_named_without_its_password() {
        let with = |address: &str| {
            let address = address.to_owned();
            proxies(move |name| (name == "https_proxy").then(|| address.clone()))
        };
        for good in ["http://proxy:3128", "http://me:s%2Fcret@proxy:3128/", "proxy:3128", "me:secret@proxy"] {
            assert!(with(good).is_ok(), "{good}");
        }
        for bad in [
            "http://me:se/cret@proxy",
            "http://me:se#cret@proxy",
            "me:se?cret@proxy",
            "http://me:a@b/c@proxy",
        ] {
            let why = with(bad).unwrap_err().to_string();
            assert!(why.contains("https_proxy") && !why.contains("cret"), "{why}");
        }
    }
}
