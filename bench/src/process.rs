//! Programs under test as child processes, and what they take of the machine.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::limits::{PATIENCE, STOP_MAX, STOPPED_EVERY};

/// A program of this workspace, built beside this one.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name(name);
    anyhow::ensure!(program.exists(), "{} is missing: cargo build --release --workspace", program.display());
    Ok(program)
}

/// A command with nothing in its environment that is meant for Signet.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SIGNET_")) {
        command.env_remove(name);
    }
    command.env_remove("PORT").stdin(Stdio::null());
    command
}

/// A running program, ended when it is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it, with all that it says in a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Starts it and waits for a line on its standard output that begins like this; gives the line's rest, and how
    /// long it took.
    pub(crate) fn start_until(
        mut command: Command,
        log: &Path,
        prefix: &str,
    ) -> anyhow::Result<(Self, String, Duration)> {
        command.stdout(Stdio::piped()).stderr(File::create(log)?);
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdout = child.stdout.take().context("a pipe")?;
        let running = Self { child, log: log.to_owned() };
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Read to the end also when nobody listens any more: what it says must not fill the pipe.
                sender.send(line).ok();
            }
        });
        let rest = loop {
            let Ok(line) = said.recv_timeout(PATIENCE) else {
                bail!("it is not ready: {}", running.last_words());
            };
            if let Some(rest) = line.strip_prefix(prefix) {
                break rest.to_owned();
            }
        };
        let took = begun.elapsed();
        Ok((running, rest, took))
    }

    /// The end of its log, for whoever wants to know why it failed.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Resident memory now, in MiB: `VmRSS`.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes / 1_024.0)
    }

    /// CPU time so far, of all its threads, also of those that have ended. Its children count apart.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(clock_gettime(clock_getcpuclockid(self.pid()?)?)?.into())
    }

    /// Ends it with SIGTERM and waits for that.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(self.pid()?, Signal::SIGTERM)?;
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(begun.elapsed() < STOP_MAX, "it does not stop: {}", self.last_words());
            std::thread::sleep(STOPPED_EVERY);
        }
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(self.child.id().try_into()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gently: an agent that is killed leaves its cgroup behind.
        if let Err(error) = self.end() {
            eprintln!("signet-bench: {error:#}");
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// The share of one core that a program takes during a window, in percent.
pub(crate) async fn cpu_share(running: &Running, window: Duration) -> anyhow::Result<f64> {
    let (begun, before) = (Instant::now(), running.cpu()?);
    tokio::time::sleep(window).await;
    let (took, after) = (begun.elapsed(), running.cpu()?);
    Ok((after - before).as_secs_f64() / took.as_secs_f64() * 100.0)
}
