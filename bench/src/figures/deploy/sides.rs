//! Plain git, agents and SSH, each with a directory for each of its hosts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use signet_testkit::ssh::SshKey;
use signet_testkit::sshd::{Account, Sshd};
use tempfile::TempDir;

use super::repository::{self, BRANCH};
use crate::limits::{DEPLOY_FILES, DEPLOY_HOSTS, DEPLOY_REST};
use crate::process::command;
use crate::stage::Stage;

/// Below the directory that each host has as `/srv`.
const PLACE: &str = "app";
const USER: &str = "bench";

/// The repository, and room for the hosts' directories on the same disk.
pub(super) struct Site {
    directory: TempDir,
    url: String,
}

impl Site {
    pub(super) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        // The hosts reached over SSH read the repository as another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let repository = directory.path().join("repository");
        repository::make(&repository)?;
        Ok(Self { url: format!("file://{}", repository.display()), directory })
    }

    /// What is asked for, with these targets.
    fn job(&self, targets: &[Value]) -> Value {
        json!({ "git_repo": self.url, "git_branch": BRANCH, "dest_path": format!("/srv/{PLACE}"), "targets": targets })
    }
}

/// The directories of one side's hosts.
struct Directories(Vec<PathBuf>);

impl Directories {
    fn new(site: &Site, side: &str) -> anyhow::Result<Self> {
        let all: Vec<_> =
            (0..DEPLOY_HOSTS).map(|n| site.directory.path().join(side).join(n.to_string())).collect();
        all.iter().try_for_each(fs::create_dir_all)?;
        Ok(Self(all))
    }

    /// Removes what was deployed.
    fn clear(&self) -> anyhow::Result<()> {
        for place in self.places().filter(|place| place.exists()) {
            fs::remove_dir_all(place)?;
        }
        Ok(())
    }

    fn places(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().map(|directory| directory.join(PLACE))
    }

    /// The one commit on which all stand, with all its files.
    fn commit(&self) -> anyhow::Result<String> {
        let mut commits = Vec::new();
        for place in self.places() {
            let mut git = command("git");
            git.args(["-c", "safe.directory=*", "rev-parse", "HEAD"]).current_dir(&place);
            let output = git.output()?;
            ensure!(
                output.status.success(),
                "{}: {}",
                place.display(),
                String::from_utf8_lossy(&output.stderr)
            );
            let mut files = 0;
            for part in fs::read_dir(&place)?.filter_map(Result::ok).filter(|part| part.file_name() != ".git")
            {
                files += fs::read_dir(part.path())?.count();
            }
            ensure!(files == DEPLOY_FILES, "{} holds {files} files", place.display());
            commits.push(String::from_utf8(output.stdout)?.trim().to_owned());
        }
        commits.dedup();
        ensure!(commits.len() == 1, "hosts stand on {commits:?}");
        commits.pop().context("no hosts")
    }
}

/// So that nobody pays for what another one left to write.
async fn rest() -> anyhow::Result<()> {
    tokio::time::sleep(DEPLOY_REST).await;
    tokio::task::spawn_blocking(nix::unistd::sync).await?;
    Ok(())
}

/// Plain git, for all hosts at once.
pub(super) struct Plain {
    directories: Directories,
    url: String,
}

impl Plain {
    pub(super) fn new(site: &Site) -> anyhow::Result<Self> {
        Ok(Self { directories: Directories::new(site, "plain")?, url: site.url.clone() })
    }

    pub(super) fn clear(&self) -> anyhow::Result<()> {
        self.directories.clear()
    }

    pub(super) fn commit(&self) -> anyhow::Result<String> {
        self.directories.commit()
    }

    /// Seconds for all clones.
    pub(super) async fn clone_all(&self) -> anyhow::Result<f64> {
        self.for_all(&["git", "clone", "--quiet", "--branch", BRANCH, &self.url, "{}"]).await
    }

    /// Seconds for the update of all clones, when there is nothing new.
    pub(super) async fn update_all(&self) -> anyhow::Result<f64> {
        self.for_all(&["sh", "-c", "cd \"$1\" && git fetch --quiet && git status --porcelain", "sh", "{}"])
            .await
    }

    async fn for_all(&self, words: &[&str]) -> anyhow::Result<f64> {
        let mut xargs = command("xargs");
        xargs.arg(format!("-P{DEPLOY_HOSTS}")).args(["-I", "{}"]).args(words);
        xargs.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let names: Vec<String> = self.directories.places().map(|place| place.display().to_string()).collect();
        rest().await?;
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let mut child = xargs.spawn().context("xargs")?;
            let mut stdin = child.stdin.take().context("a pipe")?;
            std::io::Write::write_all(&mut stdin, names.join("\n").as_bytes())?;
            drop(stdin);
            let output = child.wait_with_output()?;
            let took = begun.elapsed();
            let said = [output.stdout, output.stderr].concat();
            ensure!(output.status.success() && said.is_empty(), "git: {}", String::from_utf8_lossy(&said));
            Ok(took.as_secs_f64())
        })
        .await?
    }
}

/// Has a job done and gives the seconds from its request until the answer that says how it ended.
async fn timed(stage: &Stage, body: &Value, changed: bool) -> anyhow::Result<f64> {
    rest().await?;
    let (took, job) = stage.api.deploy(body).await?;
    let reasons: Vec<&str> = job.targets.iter().map(|target| target.reason.as_str()).collect();
    ensure!(job.status == "SUCCESS", "a job ended {}: {reasons:?}", job.status);
    let all = job.targets.iter().all(|target| target.changed == Some(changed));
    ensure!(
        job.targets.len() == DEPLOY_HOSTS && all,
        "not every host changed as it should: {:?}",
        job.targets
    );
    Ok(took.as_secs_f64())
}

/// Agents, and the controller of all jobs.
pub(super) struct Agents {
    pub(super) stage: Stage,
    directories: Directories,
    body: Value,
}

impl Agents {
    pub(super) async fn start(site: &Site) -> anyhow::Result<Self> {
        let directories = Directories::new(site, "agents")?;
        let mut stage = Stage::set(&[("SIGNET_GIT_PROTOCOLS", "https,ssh,file")]).await?;
        let mut targets = Vec::new();
        for (n, srv) in directories.0.iter().enumerate() {
            let hostname = format!("bench-{n}");
            stage.agent_with_srv(&hostname, srv).await?;
            targets.push(json!({ "host": hostname }));
        }
        Ok(Self { stage, directories, body: site.job(&targets) })
    }

    pub(super) fn clear(&self) -> anyhow::Result<()> {
        self.directories.clear()
    }

    pub(super) fn commit(&self) -> anyhow::Result<String> {
        self.directories.commit()
    }

    pub(super) async fn deploy(&self, changed: bool) -> anyhow::Result<f64> {
        timed(&self.stage, &self.body, changed).await
    }
}

/// Hosts that are reached over SSH, each with an sshd of its own.
pub(super) struct Ssh {
    directories: Directories,
    body: Value,
    _servers: Vec<Sshd>,
}

impl Ssh {
    pub(super) fn start(site: &Site) -> anyhow::Result<Self> {
        let directories = Directories::new(site, "ssh")?;
        let key = SshKey::ed25519(site.directory.path(), "key");
        let (mut servers, mut targets) = (Vec::new(), Vec::new());
        for (n, srv) in (1..).zip(&directories.0) {
            fs::set_permissions(srv, fs::Permissions::from_mode(0o1777))?;
            let server =
                Sshd::start_on(&[Account { name: USER, password: None, key: Some(&key.public) }], Some(srv));
            targets.push(json!({ "host": format!("127.0.0.{n}"), "port": server.port, "username": USER,
                "auth": { "type": "private_key", "private_key": key.private() } }));
            servers.push(server);
        }
        Ok(Self { directories, body: site.job(&targets), _servers: servers })
    }

    pub(super) fn clear(&self) -> anyhow::Result<()> {
        self.directories.clear()
    }

    pub(super) fn commit(&self) -> anyhow::Result<String> {
        self.directories.commit()
    }

    pub(super) async fn deploy(&self, stage: &Stage, changed: bool) -> anyhow::Result<f64> {
        timed(stage, &self.body, changed).await
    }
}
