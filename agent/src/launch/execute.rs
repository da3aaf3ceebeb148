//! The last steps before the command: its user, directory, streams, signals; then exec.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, dup2_stdin, getppid};

use super::account::Account;
use super::wire::{Plan, Program};
use super::{null, sys};

/// A program's name is shown up to this many characters.
const SHOWN_MAX: usize = 200;

/// Turns this process into the command, which ends with `launcher` when there is one. Comes back only with the sentence
/// that says why not.
pub(super) fn execute(plan: &Plan, launcher: Option<Pid>) -> String {
    match prepare(plan, launcher) {
        Err(fault) => fault,
        Ok((mut command, user)) => explain(&command.exec(), plan, &user),
    }
}

fn prepare(plan: &Plan, launcher: Option<Pid>) -> Result<(Command, String), String> {
    let account = Account::find(plan.user.as_deref())?;
    standard_input(plan.stdin.as_deref()).map_err(|error| format!("no standard input: {error}"))?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let report = match &plan.program {
        Program::Deploy(file) => Some(account.report(file)?),
        Program::Shell(_) | Program::Argv(_) => None,
    };
    account.enter()?;
    if let Some(launcher) = launcher {
        // Again, because a change of user forgets it. At once, because a directory may take any time to enter.
        die_with(launcher)?;
    }
    account.go(plan.cwd.as_deref())?;
    sys::reset_signals().map_err(|error| format!("signals cannot be reset: {error}"))?;
    let mut command = match &plan.program {
        Program::Shell(text) => {
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(text);
            shell
        }
        Program::Argv(argv) => {
            let (program, arguments) = argv.split_first().ok_or("argv is empty")?;
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        Program::Deploy(_) => deployment(report)?,
    };
    command.env_clear().envs(account.environment()).envs(plan.env.iter().map(|(name, value)| (name, value)));
    if matches!(plan.program, Program::Deploy(_)) {
        command.envs(signet_common::fault::wanted_by_test());
    }
    Ok((command, account.name().to_owned()))
}

/// This program again, with an open report.
fn deployment(report: Option<File>) -> Result<Command, String> {
    let report = report.ok_or("a deployment has no report")?;
    fcntl(&report, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| format!("no report: {error}"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("signet-deploy").args([super::DRIVER, &report.into_raw_fd().to_string()]);
    Ok(command)
}

/// When the launcher is killed, its command goes with it, also when that was just before.
///
/// # Errors
/// A sentence.
pub(super) fn die_with(launcher: Pid) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| format!("the launcher cannot be followed: {error}"))?;
    if getppid() == launcher { Ok(()) } else { Err("the launcher was killed".into()) }
}

/// A text becomes a file in memory: nobody has to feed a pipe, and a command that doesn't read it breaks nothing.
fn standard_input(text: Option<&str>) -> io::Result<()> {
    let Some(text) = text else { return Ok(dup2_stdin(null()?)?) };
    let mut file = File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(dup2_stdin(file)?)
}

fn explain(error: &io::Error, plan: &Plan, user: &str) -> String {
    let program = match &plan.program {
        Program::Shell(_) => "/bin/sh",
        Program::Argv(argv) => argv.first().map_or("", String::as_str),
        Program::Deploy(_) => "signet-agent",
    };
    let program: String = program.chars().take(SHOWN_MAX).collect();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => format!("there is no program {program} on this host"),
        Some(Errno::EACCES) => format!("{user} may not execute {program}"),
        Some(Errno::E2BIG) => "the command, its arguments and environment are too long for this host".into(),
        _ => format!("{program} cannot be executed: {error}"),
    }
}
