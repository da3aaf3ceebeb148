//! From a [`Spec`] to a process that has been executed, or to the sentence that says why not.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::BytesMut;
use signet_common::Jti;
use signet_common::limits::{COMMAND_TEXT_BYTES_MAX, OUTPUT_BYTES_MAX, TIMEOUT_SECONDS_MAX};
use signet_common::messages::Rejection;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::cgroup::{Job, Jobs};
use super::drive::Started;
use super::tree::{BelowLauncher, InCgroup, Tree, next_reply};
use super::{CannotStart, Program, Spec};
use crate::launch::MARKER;
use crate::launch::wire::{self, Keep, Plan, Reply};
use crate::limits::START_MAX;

/// Names the command in its own environment, and so in that of everything it starts.
pub(crate) const JTI_VARIABLE: &str = "SIGNET_JTI";

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

/// Executes the command. `scope` names the agent in the launcher's arguments.
pub(crate) async fn start(
    launcher: &Path,
    scope: &str,
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
    })
    .map_err(failed("the command is too long"))?;
    let launched = Launched::spawn(launcher, scope, &spec.jti, job).map_err(failed("no launcher"))?;
    let (tree, [stdout, stderr]) = launched.execute(&plan, spec.jti).await?;
    Ok(Started { tree, stdout, stderr, timeout, output_limit })
}

/// A launcher that waits for its plan.
struct Launched {
    child: Child,
    control: UnixStream,
    received: BytesMut,
    outputs: [pipe::Receiver; 2],
    job: Option<Job>,
}

impl Launched {
    fn spawn(launcher: &Path, scope: &str, jti: &Jti, job: Option<Job>) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stdout, stdout_writer) = io::pipe()?;
        let (stderr, stderr_writer) = io::pipe()?;
        let mut command = Command::new(launcher);
        // Nothing here may make the standard library fork by itself: no user, no group, no hook.
        command
            .arg0("signet-launch")
            .args([MARKER, &format!("{scope}/{jti}")])
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(OwnedFd::from(stdout_writer)))
            .stderr(Stdio::from(OwnedFd::from(stderr_writer)));
        let child = command.spawn()?;
        Ok(Self {
            child,
            control: UnixStream::from_std(ours)?,
            received: BytesMut::new(),
            outputs: [receiver(stdout)?, receiver(stderr)?],
            job,
        })
    }

    async fn execute(mut self, plan: &[u8], jti: Jti) -> Result<(Tree, [pipe::Receiver; 2]), CannotStart> {
        let main = match timeout(START_MAX, self.handshake(plan)).await {
            Ok(Ok(main)) => main,
            Ok(Err(fault)) => return Err(self.undo(fault).await),
            Err(_) => {
                let fault = format!("it could not be executed within {} s", START_MAX.as_secs());
                return Err(self.undo(fault).await);
            }
        };
        let Self { child, control, received, outputs, job } = self;
        let tree = match job {
            Some(job) => Tree::Cgroup(Box::new(InCgroup::new(child, job))),
            None => Tree::Launcher(Box::new(BelowLauncher::new(child, control, received, main, jti))),
        };
        Ok((tree, outputs))
    }

    /// Gives the main process's id where a launcher tells it, or the sentence that says why nothing was executed.
    async fn handshake(&mut self, plan: &[u8]) -> Result<Option<i32>, String> {
        // A launcher that died closes its end: the reply tells.
        self.control.write_all(plan).await.ok();
        let mut executing = false;
        loop {
            match next_reply(&mut self.control, &mut self.received).await {
                Ok(Some(Reply::Started(main))) => return Ok(Some(main)),
                Ok(Some(Reply::Executing)) => executing = true,
                Ok(Some(Reply::Failed(fault))) => return Err(fault),
                Ok(None) if executing => return Ok(None),
                Ok(Some(_) | None) => {
                    return Err("the launcher ended before it could execute anything".into());
                }
                Err(error) => return Err(format!("the launcher cannot be understood: {error}")),
            }
        }
    }

    /// Leaves nothing behind.
    async fn undo(mut self, fault: String) -> CannotStart {
        drop(self.control);
        let ended = match &self.job {
            Some(job) => job.kill(),
            None => Ok(()),
        };
        // The launcher may be hanging in a user database or a network disk.
        if let Err(error) = ended.and(self.child.kill().await) {
            tracing::warn!(%error, "a launcher that executed nothing cannot be ended");
        }
        if let Some(Err(error)) = self.job.map(|job| job.remove()) {
            tracing::warn!(%error, "the cgroup of a command that did not start remains");
        }
        CannotStart::exec(fault)
    }
}

fn receiver(pipe: io::PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))
}
