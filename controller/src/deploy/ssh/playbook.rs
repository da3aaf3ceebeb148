//! One run of `ansible-playbook`: its output becomes the log as it comes, its results the targets' standing.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::files::{RunDir, inventory_name, results_name};
use super::progress::{Line, Progress};
use super::results::Results;
use crate::deploy::model::{Job, RunMode};
use crate::deploy::processes;
use crate::deploy::service::Jobs;
use crate::deploy::stop::Stop;
use crate::deploy::text::{Splitter, fatal, heading, host_of, recap};
use crate::error::{Error, Result};
use crate::limits::{ANSIBLE_FORKS_MAX, RESULTS_LOOK_MILLISECONDS, SSH_CONNECT_SECONDS};

/// What one run of the playbook is for.
pub(super) struct Wave<'a> {
    /// From 0.
    pub(super) number: usize,
    /// What the log calls the hosts that are tried, in their order.
    pub(super) hosts: Vec<&'a str>,
    /// Lines about hosts that are not tried.
    pub(super) early: Vec<(String, String)>,
}

/// Runs the playbook until it ends or is stopped; gives its recap.
pub(super) async fn run(
    jobs: &Jobs,
    job: &Job,
    dir: &RunDir,
    progress: &Progress<'_>,
    wave: &Wave<'_>,
    stop: &Stop,
) -> Result<Vec<Line>> {
    let program = &jobs.rules().ansible_playbook;
    let child = match command(program, dir, job, wave).spawn() {
        Ok(child) => child,
        Err(error) => {
            let why = if error.kind() == std::io::ErrorKind::NotFound {
                format!(
                    "{} was not found on the controller: install ansible-core, or set SIGNET_ANSIBLE_PLAYBOOK",
                    program.display()
                )
            } else {
                format!("{} could not be started: {error}", program.display())
            };
            return without_ansible(progress, wave, &why).await;
        }
    };
    let marker = dir.path().display().to_string();
    let done = watched(child, &marker, (job, program), dir, progress, wave, stop).await;
    // Nothing that it started outlives it, whatever failed here.
    processes::end_all(marker).await;
    done
}

/// Takes in what a run says until it ends.
async fn watched(
    mut child: Child,
    marker: &str,
    (job, program): (&Job, &std::path::Path),
    dir: &RunDir,
    progress: &Progress<'_>,
    wave: &Wave<'_>,
    stop: &Stop,
) -> Result<Vec<Line>> {
    let (sender, mut lines) = mpsc::channel::<String>(LINES_WAITING_MAX);
    let outputs = [
        child.stdout.take().map(|pipe| tokio::spawn(read(pipe, sender.clone()))),
        child.stderr.take().map(|pipe| tokio::spawn(read(pipe, sender.clone()))),
    ];
    drop(sender);
    let mut log = Log { early: &wave.early, told: false, blank: false, recap: None };
    let mut results = Results::new(dir.at(&results_name(wave.number)));
    let mut look = tokio::time::interval(Duration::from_millis(RESULTS_LOOK_MILLISECONDS));
    let mut killed = false;
    loop {
        let mut some = Vec::new();
        let more = tokio::select! {
            biased;
            () = stop.stopped(), if !killed => {
                processes::end_all(marker.to_owned()).await;
                killed = true;
                true
            }
            got = lines.recv_many(&mut some, LINES_AT_ONCE) => got > 0,
            _ = look.tick() => true,
        };
        let new = results.read().map_err(|e| Error::Internal(format!("a job's results: {e}")))?;
        progress.take(log.with_early(some), &new).await?;
        if !more {
            break;
        }
    }
    for output in outputs.into_iter().flatten() {
        output.await.map_err(|e| Error::Internal(e.to_string()))?;
    }
    let code = ended(&mut child).await;
    // Its pipes are closed by its children only.
    processes::end_all(marker.to_owned()).await;
    progress.take(Vec::new(), &results.read().unwrap_or_default()).await?;
    if let Some(reason) = stop.reason() {
        progress.lines(vec![(None, format!("The run was ended: {}", reason.why(job)))]).await?;
    } else {
        let why = format!("{} ended ({code}) without a word on this host", program.display());
        progress.end_the_rest(&wave.hosts, &why).await?;
    }
    Ok(log.end())
}

/// Lines that wait to be stored; a run that writes faster waits.
const LINES_WAITING_MAX: usize = 1_024;
/// Lines that are stored together.
const LINES_AT_ONCE: usize = 256;

fn command(program: &std::path::Path, dir: &RunDir, job: &Job, wave: &Wave<'_>) -> Command {
    let forks = match job.plan.run_mode {
        RunMode::Parallel => wave.hosts.len().min(ANSIBLE_FORKS_MAX),
        RunMode::Serial => 1,
    };
    let mut command = Command::new(program);
    command
        .arg("--inventory")
        .arg(dir.at(&inventory_name(wave.number)))
        .arg("--extra-vars")
        .arg(format!("@{}", dir.at("variables.json").display()))
        .arg("--forks")
        .arg(forks.to_string())
        .arg(dir.at("playbook.yml"))
        .current_dir(dir.path())
        .env_clear()
        .envs(["PATH", "TZ"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("HOME", dir.at("home"))
        .env("LC_ALL", "C.UTF-8")
        .env("PYTHONUNBUFFERED", "1")
        .env("ANSIBLE_CONFIG", dir.at("ansible.cfg"))
        .env("ANSIBLE_HOME", dir.at("home"))
        .env("ANSIBLE_LOCAL_TEMP", dir.at("tmp"))
        .env("ANSIBLE_CALLBACK_PLUGINS", dir.at("plugins"))
        .env("ANSIBLE_CALLBACKS_ENABLED", "signet_results")
        .env("ANSIBLE_STDOUT_CALLBACK", "default")
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_NOCOWS", "1")
        .env("ANSIBLE_RETRY_FILES_ENABLED", "0")
        .env("ANSIBLE_HOST_KEY_CHECKING", "1")
        .env("ANSIBLE_DEPRECATION_WARNINGS", "0")
        .env("ANSIBLE_PIPELINING", "1")
        .env("ANSIBLE_TIMEOUT", SSH_CONNECT_SECONDS.to_string())
        // Nothing of ControlPersist: a connection that outlived its job would let a wrong key in.
        .env("ANSIBLE_SSH_ARGS", "-C -o ControlMaster=no -o ControlPath=none")
        .env("ANSIBLE_SSH_RETRIES", "0")
        // By this its processes are found.
        .env(processes::MARK, dir.path())
        .env("SIGNET_JOB_RESULTS", dir.at(&results_name(wave.number)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn read(mut pipe: impl tokio::io::AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut splitter = Splitter::default();
    let mut bytes = vec![0; 16 * 1024];
    loop {
        match pipe.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                for line in splitter.push(&bytes[..n]) {
                    if lines.send(line).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    if let Some(line) = splitter.rest()
        && lines.send(line).await.is_err()
    {
        tracing::debug!("nobody reads a job's output any more");
    }
}

async fn ended(child: &mut Child) -> String {
    match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Ansible's lines, with those about hosts that were not tried where they belong. The recap comes once, after the last
/// wave.
struct Log<'a> {
    early: &'a [(String, String)],
    told: bool,
    /// An empty line that was not passed on: it may be the recap's.
    blank: bool,
    /// Once it began.
    recap: Option<Vec<Line>>,
}

impl Log<'_> {
    fn with_early(&mut self, lines: Vec<String>) -> Vec<Line> {
        let mut out = Vec::new();
        for line in lines {
            let host = host_of(&line).map(str::to_owned);
            if line.starts_with("PLAY RECAP ***") {
                (self.blank, self.recap) = (false, Some(Vec::new()));
                continue;
            }
            if let (Some(recap), true) = (&mut self.recap, host.is_some()) {
                recap.push((host, line));
                continue;
            }
            let blank = line.is_empty();
            if std::mem::replace(&mut self.blank, blank) && !blank {
                out.push((None, String::new()));
            }
            if blank {
                continue;
            }
            let after = line.starts_with("TASK [");
            out.push((host, line));
            if after && !std::mem::replace(&mut self.told, true) {
                out.extend(self.early.iter().map(|(host, line)| (Some(host.clone()), line.clone())));
            }
        }
        out
    }

    /// The recap.
    fn end(self) -> Vec<Line> {
        let early = self.early.iter().map(|(host, _)| (Some(host.clone()), recap(host, [0, 0, 0, 1, 0])));
        self.recap.unwrap_or_default().into_iter().chain(early).collect()
    }
}

/// Every host fails, and the log says why; gives the recap.
async fn without_ansible(progress: &Progress<'_>, wave: &Wave<'_>, why: &str) -> Result<Vec<Line>> {
    let left = progress.end_the_rest_quietly(&wave.hosts, why).await?;
    let mut lines = vec![(None, heading("PLAY [all]")), (None, heading("TASK [git]"))];
    lines.extend(wave.early.iter().map(|(host, line)| (Some(host.clone()), line.clone())));
    lines.extend(left.iter().map(|host| (Some(host.clone()), fatal(host, false, why))));
    progress.lines(lines).await?;
    let all = wave.early.iter().map(|(host, _)| host).chain(&left);
    Ok(all.map(|host| (Some(host.clone()), recap(host, [0, 0, 0, 1, 0]))).collect())
}
