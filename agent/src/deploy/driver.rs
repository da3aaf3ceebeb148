//! The driver: reads its plan, does it, and reports.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::process::exit;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{close, dup2_stdin};
use signet_common::deploy::{Deployed, Phase, Strategy};

use super::git::Git;
use super::job::{Job, Told, lock};
use super::plan::{Fault, Plan};
use super::say::{complain, say};
use super::{in_place, place, releases, store};
use crate::limits::LAUNCH_FRAME_BYTES_MAX;

const EXIT_FAILED: i32 = 1;
/// Not started as the agent would: there is nobody to tell more.
const EXIT_NO_PLAN: i32 = 2;
/// As a shell says that TERM ended a program.
const EXIT_TERMINATED: i32 = 143;

/// Does what the plan on the standard input says, and gives the exit code.
pub(super) fn main(report: Option<OsString>) -> i32 {
    let plan = match read_plan() {
        Ok(plan) => plan,
        Err(_) => return EXIT_NO_PLAN,
    };
    let told = Told { file: report.and_then(open_report), deployed: Deployed::default(), undo: None };
    let told = Arc::new(Mutex::new(told));
    if let Err(error) = heed_term(&told) {
        complain(&Fault::of("signals can't be heard")(error));
        return EXIT_FAILED;
    }
    let done = work(plan, &told);
    let mut told = lock(&told);
    if let Err(fault) = &done {
        complain(fault);
    }
    told.report(done.as_ref().err());
    if done.is_ok() { 0 } else { EXIT_FAILED }
}

fn read_plan() -> io::Result<Plan> {
    let mut text = Vec::new();
    io::stdin().take(LAUNCH_FRAME_BYTES_MAX as u64).read_to_end(&mut text)?;
    // With it goes the file in memory that holds the credential.
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(serde_json::from_slice(&text)?)
}

/// The report again, so that no child inherits it.
fn open_report(number: OsString) -> Option<File> {
    let number: i32 = number.to_str()?.parse().ok()?;
    let file = fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}")).ok()?;
    close(number).ok()?;
    Some(file)
}

/// When it is to end early, what was switched and not proven is switched back first.
fn heed_term(told: &Arc<Mutex<Told>>) -> io::Result<()> {
    let term = SigSet::from_iter([Signal::SIGTERM]);
    // Children begin with no signal blocked: the standard library sees to that.
    term.thread_block()?;
    let told = Arc::clone(told);
    thread::Builder::new().spawn(move || {
        if term.wait().is_err() {
            return;
        }
        // Kept until the end: nothing is switched any more.
        let mut told = lock(&told);
        let fault = Fault::new("it was ended before it was done");
        if let Err(fault) = told.take_back() {
            complain(&fault);
        }
        told.report(Some(&fault));
        exit(EXIT_TERMINATED);
    })?;
    Ok(())
}

fn work(plan: Plan, told: &Arc<Mutex<Told>>) -> Result<(), Fault> {
    let Plan { deploy, secret, roots, narrowed, look } = plan;
    deploy.check().map_err(|bad| Fault::new(bad.to_string()))?;
    let git = Git::new(&deploy, secret.as_ref(), narrowed)?;
    drop(secret);
    if deploy.phase == Phase::Resolve && !look {
        let commit = store::resolve(&git, &deploy)?;
        say(&format!(
            "{} is {commit}",
            deploy.reference.as_ref().map_or("HEAD", |reference| reference.as_str())
        ));
        lock(told).deployed.commit = Some(commit);
        return Ok(());
    }
    let path = place::resolve(deploy.path.as_str().as_ref(), &roots)?;
    let mut job = Job { deploy, path, made: Vec::new(), roots, git, told: Arc::clone(told) };
    if look {
        return match job.deploy.strategy {
            Strategy::InPlace => in_place::look_at(&mut job),
            Strategy::Releases(_) => releases::look_at(&mut job),
        };
    }
    let done = match (job.deploy.phase, job.deploy.strategy.clone()) {
        (Phase::Deploy, Strategy::InPlace) => in_place::deploy(&mut job),
        (Phase::Deploy, Strategy::Releases(how)) => releases::deploy(&mut job, &how),
        (_, Strategy::InPlace) => in_place::preflight(&job),
        (_, Strategy::Releases(_)) => releases::preflight(&job),
    };
    if done.is_err() {
        place::unmake(&job.made);
    }
    done
}
