//! The launchers' server: it may come and go, and no command is lost, run twice or told wrongly.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signet_agent::limits::{LAUNCHER_IDLE, START_MAX};
use signet_common::messages::Outcome;

use crate::support::{argv, finish, number_in, run, runner, runner_at, shell, until};

const WORKER_DIR: &str = "SIGNET_TEST_WORKER_DIR";

/// The processes, dead ones that nobody has waited for included, that this one has started for a runner's commands.
fn launchers(directory: &Path) -> Vec<i32> {
    let data_dir = directory.join("data").canonicalize().unwrap();
    let tag = format!("{}/", &hex::encode(digest(&SHA256, data_dir.as_os_str().as_encoded_bytes()))[..12]);
    let is_ours = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).nth(2) == Some(tag.as_bytes())
    };
    children().into_iter().map(|(pid, _)| pid).filter(is_ours).collect()
}

/// The id and the process group of each child of this process.
fn children() -> Vec<(i32, i32)> {
    let own = i32::try_from(std::process::id()).unwrap();
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
        let (parent, group): (i32, i32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (parent == own).then_some((pid, group))
    })
    .collect()
}

/// The server of a runner of which no command runs.
fn server(directory: &Path) -> i32 {
    let launchers = launchers(directory);
    assert_eq!(launchers.len(), 1, "{launchers:?}");
    launchers[0]
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// It and what it has forked are gone, and were waited for.
async fn is_gone(pid: i32) {
    let gone = || children().iter().all(|(child, group)| ![*child, *group].contains(&pid)).then_some(());
    until("the end of a server", gone).await;
}

/// Turns the clock. Nothing else is done meanwhile.
async fn later(time: std::time::Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn one_serves_many_and_a_killed_one_is_replaced() {
    let (runner, directory) = runner();
    run(&runner, shell("true")).await.unwrap();
    let first = server(directory.path());
    run(&runner, shell("true")).await.unwrap();
    assert_eq!(server(directory.path()), first);
    for number in 0..20 {
        let killed = server(directory.path());
        signal(killed, Signal::SIGKILL);
        // At once: it may be dead or about to be.
        let done = run(&runner, shell(&format!("echo {number}"))).await.unwrap();
        assert_eq!(done.text(), number.to_string());
        is_gone(killed).await;
    }
}

#[tokio::test]
async fn a_killed_one_takes_no_command_with_it() {
    let (runner, directory) = runner();
    run(&runner, shell("true")).await.unwrap();
    let server = server(directory.path());
    let (ready, go) = (directory.path().join("ready"), directory.path().join("go"));
    let text = format!(
        "echo $$ > {}; until [ -e {} ]; do sleep 0.02; done; echo out; exit 7",
        ready.display(),
        go.display()
    );
    let running = runner.start(shell(&text)).await.unwrap();
    number_in(&ready).await;
    signal(server, Signal::SIGKILL);
    is_gone(server).await;
    std::fs::write(go, "").unwrap();
    let done = finish(running).await;
    assert_eq!((done.result.exit_code, done.result.reason.as_deref()), (Some(7), None));
    assert_eq!((done.text(), done.result.killed), ("out", 0));
}

#[tokio::test]
async fn one_that_is_not_needed_goes_and_what_runs_stays() {
    let (runner, directory) = runner();
    run(&runner, shell("true")).await.unwrap();
    let first = server(directory.path());
    let go = directory.path().join("go");
    let text = format!("until [ -e {} ]; do sleep 0.02; done; exit 7", go.display());
    let running = runner.start(shell(&text)).await.unwrap();
    later(LAUNCHER_IDLE).await;
    is_gone(first).await;
    std::fs::write(go, "").unwrap();
    assert_eq!(finish(running).await.result.exit_code, Some(7));
    assert_eq!(launchers(directory.path()), Vec::<i32>::new());
    run(&runner, shell("true")).await.unwrap();
    let second = server(directory.path());
    drop(runner);
    is_gone(second).await;
}

#[tokio::test]
async fn a_command_that_was_given_up_is_not_executed_when_the_server_wakes_up() {
    let (runner, directory) = runner();
    run(&runner, shell("true")).await.unwrap();
    let server = server(directory.path());
    signal(server, Signal::SIGSTOP);
    let file = directory.path().join("executed");
    let spec = shell(&format!("echo 1 > {}", file.display()));
    let starting = tokio::spawn({
        let runner = runner.clone();
        async move { runner.start(spec).await }
    });
    // Nothing on the way to the server waits for anything.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    later(START_MAX).await;
    let refused = starting.await.unwrap().unwrap_err();
    assert_eq!(refused.detail, "it could not be executed within 30 s");
    // Another one serves meanwhile.
    assert_eq!(run(&runner, shell("echo on")).await.unwrap().text(), "on");
    // On a busy host it may have been ended already.
    kill(Pid::from_raw(server), Signal::SIGCONT).ok();
    is_gone(server).await;
    // And the launcher that it made when it woke up.
    until("the end of its launcher", || (launchers(directory.path()).len() <= 1).then_some(())).await;
    assert!(!file.exists(), "what was refused was executed");
}

/// Not a test by itself: counts what [`nothing_of_many_commands_remains`] asks for, in a process of its own.
#[tokio::test]
async fn as_worker() {
    let Some(directory) = std::env::var_os(WORKER_DIR).map(PathBuf::from) else { return };
    let runner = runner_at(&directory.join("data"));
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    run(&runner, shell("true")).await.unwrap();
    let before = (open(), children().len());
    for _ in 0..50 {
        assert_eq!(run(&runner, shell("exit 3")).await.unwrap().result.exit_code, Some(3));
        let refused = run(&runner, argv(&["no-such-program-here"])).await.unwrap_err();
        assert!(refused.detail.contains("there is no program"));
    }
    let text = "setsid sleep 1000 >/dev/null 2>&1 & kill -9 $$";
    assert_eq!(run(&runner, shell(text)).await.unwrap().result.outcome, Outcome::Failed);
    assert_eq!((open(), children().len()), before);
    println!("counted");
}

#[test]
fn nothing_of_many_commands_remains() {
    let directory = tempfile::tempdir().unwrap();
    let mut worker = Command::new(std::env::current_exe().unwrap());
    worker.args(["launcher::as_worker", "--exact", "--nocapture"]).env(WORKER_DIR, directory.path());
    let output = worker.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("counted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_at_once_do_not_mix() {
    let (runner, directory) = runner();
    let all = (0..64).map(|number| {
        let runner = runner.clone();
        tokio::spawn(async move {
            let text = format!(
                "sleep 0.2; echo {number}; echo {number} >&2; ls /proc/self/fd | wc -w; exit {number}"
            );
            let done = run(&runner, shell(&text)).await.unwrap();
            // The three standard ones, and the directory that ls reads.
            assert_eq!(done.text(), format!("{number}\n4"));
            assert_eq!(done.stderr, format!("{number}\n").as_bytes());
            assert_eq!(done.result.exit_code, Some(number));
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    server(directory.path());
}
