//! From a [`Spec`] to a process that has been executed, or to the sentence that says why not.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::{Shutdown, shutdown};
use rustix::process::Pid;
use signet_common::limits::{COMMAND_TEXT_BYTES_MAX, OUTPUT_BYTES_MAX, TIMEOUT_SECONDS_MAX};
use signet_common::messages::Rejection;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::signal::unix::Signal;
use tokio::time::{Instant, timeout_at};

use super::cgroup::{Job, Jobs};
use super::child::{self, Child};
use super::drive::Started;
use super::launcher::Launcher;
use super::tree::{BelowLauncher, InCgroup, Tree, next_reply};
use super::{CannotStart, Program, Spec};
use crate::launch::streams::Streams;
use crate::launch::wire::{self, Keep, Plan, Reply};
use crate::limits::{LAUNCH_TRIES, START_MAX};

/// Names the command in its own environment, and so in that of everything it starts.
pub(crate) const JTI_VARIABLE: &str = "SIGNET_JTI";
/// Said when the last word of a launcher was not that it executes.
const ENDED: &str = "the launcher ended before it could execute anything";

impl CannotStart {
    /// Nothing was executed, for this reason.
    pub(crate) fn exec(detail: impl Into<String>) -> Self {
        Self { reason: Rejection::Exec, detail: detail.into() }
    }
}

fn failed(what: &str) -> impl Fn(io::Error) -> CannotStart {
    move |error| CannotStart::exec(format!("{what}: {error}"))
}

/// Refuses what could not be executed as it is meant.
pub(crate) fn check(spec: &Spec) -> Result<(), CannotStart> {
    let texts: Vec<&str> = match &spec.program {
        Program::Shell(text) => vec![text],
        Program::Argv(argv) => argv.iter().map(String::as_str).collect(),
        Program::Deploy(_) => vec!["signet-agent"],
    };
    if texts.first().is_none_or(|program| program.is_empty()) {
        return Err(CannotStart::exec("there is nothing to execute"));
    }
    if texts.iter().any(|text| text.len() > COMMAND_TEXT_BYTES_MAX) {
        return Err(CannotStart::exec(format!(
            "one argument is longer than {COMMAND_TEXT_BYTES_MAX} bytes, which is all that Linux takes; use stdin"
        )));
    }
    let cwd = spec.cwd.as_deref().map(Path::to_string_lossy).unwrap_or_default();
    let user = spec.user.as_deref().unwrap_or_default();
    let mut all = texts.into_iter().chain([&*cwd, user]).chain(spec.env.values().map(String::as_str));
    if all.any(|text| text.contains('\0')) {
        return Err(CannotStart::exec("a zero byte cannot be passed to a program"));
    }
    if spec.env.keys().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(CannotStart::exec("the name of an environment variable is empty or has a = in it"));
    }
    if spec.cwd.as_ref().is_some_and(|cwd| !cwd.is_absolute()) {
        return Err(CannotStart::exec(format!("the working directory {cwd} is not absolute")));
    }
    Ok(())
}

/// Executes the command.
pub(crate) async fn start(
    launcher: &Arc<Launcher>,
    jobs: Option<&Jobs>,
    spec: Spec,
) -> Result<Started, CannotStart> {
    let job =
        jobs.map(|jobs| jobs.job(&spec.jti)).transpose().map_err(failed("no cgroup for the command"))?;
    let timeout = spec.timeout.min(Duration::from_secs(TIMEOUT_SECONDS_MAX.into()));
    let output_limit = spec.output_limit.min(OUTPUT_BYTES_MAX);
    let mut env = spec.env;
    env.insert(JTI_VARIABLE.into(), spec.jti.to_string());
    let plan = wire::frame(&Plan {
        program: spec.program,
        env: env.into_iter().collect(),
        cwd: spec.cwd,
        stdin: spec.stdin,
        user: spec.user,
        keep: job.as_ref().map_or(Keep::Tree, |job| Keep::Cgroup(job.directory().to_owned())),
    });
    let executed = match plan {
        Ok(plan) => execute(launcher, &plan, job.as_ref()).await,
        Err(error) => Err(format!("the command is too long: {error}")),
    };
    match executed {
        Ok((launched, main)) => {
            let Launched { child, control, received, outputs: [stdout, stderr] } = launched;
            let tree = match job {
                Some(job) => Tree::Cgroup(Box::new(InCgroup::new(child, job))),
                None => {
                    Tree::Launcher(Box::new(BelowLauncher::new(child, control, received, main, spec.jti)))
                }
            };
            Ok(Started { tree, stdout, stderr, timeout, output_limit })
        }
        Err(fault) => {
            if let Some(Err(error)) = job.map(|job| job.remove()) {
                tracing::warn!(%error, "the cgroup of a command that did not start remains");
            }
            Err(CannotStart::exec(fault))
        }
    }
}

/// Gives what was executed and the main process's id where a launcher tells it, or the sentence that says why nothing was.
async fn execute(
    launcher: &Arc<Launcher>,
    plan: &[u8],
    job: Option<&Job>,
) -> Result<(Launched, Option<i32>), String> {
    let turn = launcher.turn().await.map_err(|error| error.to_string())?;
    let until = Instant::now() + START_MAX;
    let mut launched = launch(launcher, plan, job, until).await?;
    drop(turn);
    let fault = match timeout_at(until, launched.executed()).await {
        Ok(Ok(main)) => return Ok((launched, main)),
        Ok(Err(fault)) => fault,
        Err(_) => too_slow(),
    };
    launched.undo(job).await;
    Err(fault)
}

fn too_slow() -> String {
    format!("it could not be executed within {} s", START_MAX.as_secs())
}

/// A launcher that has the plan.
async fn launch(
    launcher: &Arc<Launcher>,
    plan: &[u8],
    job: Option<&Job>,
    until: Instant,
) -> Result<Launched, String> {
    for _ in 0..LAUNCH_TRIES {
        let mut asked = Asked::new(launcher).map_err(|error| format!("no launcher: {error}"))?;
        match timeout_at(until, asked.answer(plan)).await {
            Ok(Ok(Some(pid))) => return Ok(asked.launched(pid)),
            // Nobody has it any more and nobody has said that it executes: whoever may have had it did not.
            Ok(Ok(None)) => launcher.forget(asked.server),
            Ok(Err(fault)) => return Err(fault),
            Err(_) => {
                launcher.forget(asked.server);
                match asked.refuse() {
                    Some(launched) => launched.undo(job).await,
                    // It may come all the same, as far as its first word.
                    None => complain(job.map_or(Ok(()), Job::kill)),
                }
                return Err(too_slow());
            }
        }
    }
    Err(ENDED.into())
}

/// A launcher that was asked for, and has not said who it is.
struct Asked {
    server: Pid,
    ends: Signal,
    control: UnixStream,
    received: BytesMut,
    outputs: [pipe::Receiver; 2],
}

impl Asked {
    fn new(launcher: &Arc<Launcher>) -> io::Result<Self> {
        let ends = child::ends()?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stdout, stdout_writer) = io::pipe()?;
        let (stderr, stderr_writer) = io::pipe()?;
        let control = UnixStream::from_std(ours)?;
        let outputs = [receiver(stdout)?, receiver(stderr)?];
        // The last that can fail: from here on there may be a launcher.
        let server = launcher.ask(&Streams {
            control: theirs.into(),
            stdout: stdout_writer.into(),
            stderr: stderr_writer.into(),
        })?;
        Ok(Self { server, ends, control, received: BytesMut::new(), outputs })
    }

    /// Tells the plan. Gives the launcher's id, `None` when there is no launcher (any more), or why there can be none.
    async fn answer(&mut self, plan: &[u8]) -> Result<Option<Pid>, String> {
        // When nobody is left to hear it, the answer tells.
        self.control.write_all(plan).await.ok();
        match next_reply(&mut self.control, &mut self.received).await {
            Ok(Some(Reply::Launched(pid))) => Ok(Pid::from_raw(pid)),
            Ok(Some(Reply::Failed(fault))) => Err(fault),
            Ok(None) => Ok(None),
            Ok(Some(_)) => Err("the launcher does not say who it is".into()),
            Err(error) => Err(not_understood(&error)),
        }
    }

    /// Hears nothing more: a launcher that comes now cannot say that it is about to execute, and so does not. Gives the one
    /// that has come.
    fn refuse(mut self) -> Option<Launched> {
        if let Err(error) = shutdown(&self.control, Shutdown::Both) {
            tracing::warn!(%error, "a launcher cannot be refused");
        }
        // What was said before is still there, and the end behind it. Not read through the runtime, which may not have
        // looked at the socket since.
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = nix::unistd::read(&self.control, &mut buffer) {
            self.received.extend_from_slice(&buffer[..length]);
        }
        match wire::take(&mut self.received) {
            Ok(Some(Reply::Launched(pid))) => Pid::from_raw(pid).map(|pid| self.launched(pid)),
            _ => None,
        }
    }

    fn launched(self, pid: Pid) -> Launched {
        let Self { ends, control, received, outputs, .. } = self;
        Launched { child: Child::new(pid, ends), control, received, outputs }
    }
}

/// A launcher that has its plan.
struct Launched {
    child: Child,
    control: UnixStream,
    received: BytesMut,
    outputs: [pipe::Receiver; 2],
}

impl Launched {
    /// Waits until it has executed, and gives the main process's id where it tells it, or why it has not.
    async fn executed(&mut self) -> Result<Option<i32>, String> {
        let mut executing = false;
        loop {
            match next_reply(&mut self.control, &mut self.received).await {
                Ok(Some(Reply::Started(main))) => return Ok(Some(main)),
                Ok(Some(Reply::Executing)) => executing = true,
                Ok(Some(Reply::Failed(fault))) => return Err(fault),
                Ok(None) if executing => return Ok(None),
                Ok(Some(_) | None) => return Err(ENDED.into()),
                Err(error) => return Err(not_understood(&error)),
            }
        }
    }

    /// Leaves no process behind.
    async fn undo(mut self, job: Option<&Job>) {
        drop(self.control);
        let ended = job.map_or(Ok(()), Job::kill);
        // The launcher may be hanging in a user database or a network disk.
        complain(ended.and(self.child.kill().await));
    }
}

fn complain(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "a launcher that executed nothing cannot be ended");
    }
}

fn not_understood(error: &io::Error) -> String {
    format!("the launcher cannot be understood: {error}")
}

fn receiver(pipe: io::PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))
}
