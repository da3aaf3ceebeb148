//! How commands and all that they started come to an end.

use std::time::{Duration, Instant};

use signet_agent::limits::{OUTPUT_GRACE, TERM_GRACE};
use signet_agent::run::{End, Spec};
use signet_common::messages::Outcome;

use crate::support::{alive, finish, in_cgroups, lives, number_in, run, runner, shell, until};

/// Longer and longer, for hosts so busy that a command is not ready when its time is up.
const TIME_OUTS: [Duration; 3] =
    [Duration::from_millis(1_500), Duration::from_secs(6), Duration::from_secs(24)];

#[tokio::test]
async fn a_time_out_ends_a_grandchild_in_its_own_session_that_ignores_term() {
    let (runner, directory) = runner();
    for timeout in TIME_OUTS {
        let file = directory.path().join(timeout.as_millis().to_string());
        let text = format!(
            "setsid sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 1; done' >/dev/null 2>&1 & sleep 1000",
            file.display()
        );
        let start = Instant::now();
        let done = run(&runner, Spec { timeout, ..shell(&text) }).await.unwrap();
        assert_eq!((done.result.outcome, done.result.signal), (Outcome::TimedOut, Some(15)));
        let reason = format!("timed out after {} s", timeout.as_secs_f64());
        assert_eq!(done.result.reason.as_deref(), Some(reason.as_str()));
        if !file.exists() {
            continue;
        }
        assert!(done.result.killed >= 1);
        assert!(start.elapsed() >= timeout + TERM_GRACE, "between TERM and KILL");
        assert!(!lives(number_in(&file).await));
        return;
    }
    panic!("the host is too busy");
}

#[tokio::test]
async fn a_time_out_gives_the_tree_the_time_to_end_itself() {
    let (runner, directory) = runner();
    for timeout in TIME_OUTS {
        let file = directory.path().join(timeout.as_millis().to_string());
        let text = format!(
            "sh -c 'trap \"echo 1 >> {0}; exit 3\" TERM; echo ready > {0}; while :; do sleep 0.05; done'",
            file.display()
        );
        let done = run(&runner, Spec { timeout, ..shell(&text) }).await.unwrap();
        assert_eq!(done.result.outcome, Outcome::TimedOut);
        if file.exists() {
            assert_eq!(done.result.killed, 0);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "ready\n1\n");
            return;
        }
    }
    panic!("the host is too busy");
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
    let mut quickest = u64::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let done = run(&runner, shell("sleep 1000 & echo hi")).await.unwrap();
        assert_eq!((done.result.outcome, done.result.killed, done.text()), (Outcome::Succeeded, 1, "hi"));
        assert!((OUTPUT_GRACE..Duration::from_secs(20)).contains(&start.elapsed()));
        quickest = quickest.min(done.result.duration_ms);
    }
    assert!(quickest < 1_000, "the main process was quick: {quickest}");
}

#[tokio::test]
async fn what_a_background_child_still_writes_is_taken() {
    let (runner, _directory) = runner();
    // On a busy host the child may come after the second that it has.
    for _ in 0..10 {
        let done = run(&runner, shell("(sleep 0.3; echo late) & echo early")).await.unwrap();
        if (done.text(), done.result.killed) == ("early\nlate", 0) {
            return;
        }
        assert_eq!(done.text(), "early");
    }
    panic!("it was never taken");
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
