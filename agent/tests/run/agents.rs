//! Agents that are killed, and what the next start finds.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use signet_agent::run::LeftBehind;

use crate::support::{finish, in_cgroups, lives, number_in, run, runner_at, shell, until};

const AGENT_DIR: &str = "SIGNET_TEST_AGENT_DIR";

/// Not a test by itself: the agent that the tests below kill.
#[tokio::test]
async fn as_agent() {
    let Some(directory) = std::env::var_os(AGENT_DIR).map(PathBuf::from) else { return };
    let runner = runner_at(&directory.join("data"));
    let text = format!(
        "echo $PPID > {0}/launcher; sleep 1000 & setsid sleep 1000 >/dev/null 2>&1 & echo $! > {0}/grandchild; wait",
        directory.display()
    );
    finish(runner.start(shell(&text)).await.unwrap()).await;
}

/// An agent in a process of its own, its launcher (or itself, with cgroups), and a grandchild in its own session.
async fn agent(directory: &Path) -> (Child, i32, i32) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["agents::as_agent", "--exact", "--nocapture"]).env(AGENT_DIR, directory);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let launcher = number_in(&directory.join("launcher")).await;
    (child, launcher, number_in(&directory.join("grandchild")).await)
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_killed_agents_commands_are_ended_by_their_launchers_or_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, _, grandchild) = agent(directory.path()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    if in_cgroups() {
        assert!(lives(grandchild), "nobody has ended it yet");
        let runner = runner_at(&directory.path().join("data"));
        assert_eq!(runner.end_leftovers().await.unwrap(), LeftBehind { killed: 3, left: 0 });
        assert_eq!(runner.end_leftovers().await.unwrap(), LeftBehind::default());
    } else {
        until("the launcher ends the tree", || (!lives(grandchild)).then_some(())).await;
    }
    assert!(!lives(grandchild));
}

#[tokio::test]
async fn the_next_start_does_not_wait_for_launchers() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, _, grandchild) = agent(directory.path()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let runner = runner_at(&directory.path().join("data"));
    runner.end_leftovers().await.unwrap();
    assert!(!lives(grandchild));
    // What the new start runs is its own.
    assert_eq!(run(&runner, shell("echo on")).await.unwrap().text(), "on");
}

#[tokio::test]
async fn a_tree_whose_launcher_was_killed_with_the_agent_is_found() {
    if in_cgroups() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut child, launcher, grandchild) = agent(directory.path()).await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(launcher), nix::sys::signal::Signal::SIGSTOP).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    kill(launcher);
    assert!(lives(grandchild));
    let runner = runner_at(&directory.path().join("data"));
    assert!(runner.end_leftovers().await.unwrap().killed >= 1);
    assert!(!lives(grandchild));
}

#[tokio::test]
async fn agents_on_one_host_leave_each_other_alone() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut child, _, grandchild) = agent(one.path()).await;
    let runner = runner_at(&two.path().join("data"));
    assert_eq!(runner.end_leftovers().await.unwrap(), LeftBehind::default());
    assert!(lives(grandchild));
    child.kill().unwrap();
    child.wait().unwrap();
    runner_at(&one.path().join("data")).end_leftovers().await.unwrap();
    until("the end of the first one's", || (!lives(grandchild)).then_some(())).await;
}
