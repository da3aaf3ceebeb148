//! How commands and all that they started come to an end.

use std::time::{Duration, Instant};

use signet_agent::run::End;
use signet_common::messages::Outcome;

use crate::support::{alive, finish, in_cgroups, lives, number_in, run, runner, shell, until};

#[tokio::test]
async fn a_time_out_ends_a_grandchild_in_its_own_session_that_ignores_term() {
    let (runner, directory) = runner();
    let file = directory.path().join("pid");
    let text = format!(
        "setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' >/dev/null 2>&1 & sleep 1000",
        file.display()
    );
    let mut spec = shell(&text);
    spec.timeout = Duration::from_millis(1_500);
    let start = Instant::now();
    let done = run(&runner, spec).await.unwrap();
    assert_eq!(done.result.outcome, Outcome::TimedOut);
    assert_eq!(done.result.signal, Some(15));
    assert_eq!(done.result.reason.as_deref(), Some("timed out after 1.5 s"));
    assert!(done.result.killed >= 1);
    assert!(start.elapsed() >= Duration::from_millis(6_400), "5 s between TERM and KILL");
    assert!(!lives(number_in(&file).await));
}

#[tokio::test]
async fn a_time_out_gives_the_tree_the_time_to_end_itself() {
    let (runner, directory) = runner();
    let file = directory.path().join("trapped");
    let text =
        format!("sh -c 'trap \"echo 1 > {}; exit 3\" TERM; while :; do sleep 0.05; done'", file.display());
    let mut spec = shell(&text);
    spec.timeout = Duration::from_millis(1_500);
    let done = run(&runner, spec).await.unwrap();
    assert_eq!((done.result.outcome, done.result.killed), (Outcome::TimedOut, 0));
    assert!(done.result.duration_ms < 6_000);
    assert_eq!(number_in(&file).await, 1);
}

#[tokio::test]
async fn a_stopped_process_is_ended_too() {
    let (runner, _directory) = runner();
    let mut spec = shell("kill -STOP $$");
    spec.timeout = Duration::from_millis(300);
    let done = run(&runner, spec).await.unwrap();
    assert_eq!((done.result.outcome, done.result.signal), (Outcome::TimedOut, Some(15)));
}

#[tokio::test]
async fn a_child_in_the_background_holds_the_output_for_a_second_at_most() {
    let (runner, _directory) = runner();
    let start = Instant::now();
    let done = run(&runner, shell("sleep 1000 & echo hi")).await.unwrap();
    assert_eq!((done.result.outcome, done.result.killed, done.text()), (Outcome::Succeeded, 1, "hi"));
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&start.elapsed()));
    assert!(done.result.duration_ms < 1_000, "the main process was quick: {}", done.result.duration_ms);
}

#[tokio::test]
async fn what_a_background_child_still_writes_is_taken() {
    let (runner, _directory) = runner();
    let done = run(&runner, shell("(sleep 0.3; echo late) & echo early")).await.unwrap();
    assert_eq!((done.text(), done.result.killed), ("early\nlate", 0));
}

#[tokio::test]
async fn a_child_in_the_background_without_the_output_is_ended_at_once() {
    let (runner, _directory) = runner();
    let text = "for i in 1 2 3; do setsid sleep 1000 >/dev/null 2>&1 </dev/null & done; exit 4";
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let done = run(&runner, shell(text)).await.unwrap();
        assert_eq!((done.result.outcome, done.result.exit_code), (Outcome::Failed, Some(4)));
        assert_eq!(done.result.killed, 3);
        quickest = quickest.min(start.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "it does not wait for output that cannot come");
}

#[tokio::test]
async fn orders_to_end() {
    let (runner, directory) = runner();
    for (why, outcome, reason) in [
        (End::Cancel, Outcome::Cancelled, None),
        (End::AgentStops, Outcome::Interrupted, Some("agent stopped".to_owned())),
    ] {
        let file = directory.path().join(format!("{outcome:?}"));
        let text = format!("(setsid sleep 1000 & echo $! > {}); sleep 1000", file.display());
        let spec = shell(&text);
        let jti = spec.jti.clone();
        let running = runner.start(spec).await.unwrap();
        let grandchild = number_in(&file).await;
        running.end(why);
        running.end(End::Cancel);
        let done = finish(running).await;
        assert_eq!((done.result.outcome, done.result.reason), (outcome, reason));
        assert_eq!(done.result.signal, Some(15));
        assert!(!lives(grandchild));
        assert_eq!(alive(&jti), Vec::<i32>::new());
    }
}

#[tokio::test]
async fn who_stops_listening_ends_the_command() {
    let (runner, directory) = runner();
    let file = directory.path().join("pid");
    let spec = shell(&format!("echo $$ > {}; sleep 1000", file.display()));
    let jti = spec.jti.clone();
    let running = runner.start(spec).await.unwrap();
    let main = number_in(&file).await;
    drop(running);
    until("the end of a command that nobody follows", || (!lives(main)).then_some(())).await;
    until("the end of its children", || alive(&jti).is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_killed_launcher_leaves_nothing_behind() {
    if in_cgroups() {
        return;
    }
    let (runner, directory) = runner();
    let file = directory.path().join("pid");
    let text = format!(
        "setsid sleep 1000 >/dev/null 2>&1 & echo $! > {}; kill -9 $PPID; sleep 1000",
        file.display()
    );
    let done = run(&runner, shell(&text)).await.unwrap();
    assert_eq!(done.result.outcome, Outcome::Failed);
    assert_eq!(done.result.reason.as_deref(), Some("the process that watched it was killed"));
    assert!(!lives(number_in(&file).await));
}

#[tokio::test]
async fn many_children_that_keep_forking_are_all_ended() {
    let (runner, _directory) = runner();
    let text = "trap '' TERM; f() { while :; do setsid sleep 0.02; done; }; f & f & f & f & exit 0";
    let done = run(&runner, shell(text)).await.unwrap();
    assert_eq!(done.result.outcome, Outcome::Succeeded);
    assert!(done.result.killed >= 4, "{}", done.result.killed);
    assert_eq!(done.result.reason, None);
}
