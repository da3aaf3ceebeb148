//! What is told and kept of a command's output.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256, digest};
use signet_agent::run::{RunEvent, Runner};
use signet_common::messages::Stream;

use crate::support::{Done, finish, run, runner, shell};

/// Runs it until it was quick enough to have its output in the result, however busy the host is.
async fn run_quickly(runner: &Runner, text: &str) -> Done {
    for _ in 0..10 {
        let start = Instant::now();
        let done = run(runner, shell(text)).await.unwrap();
        if start.elapsed() < Duration::from_secs(1) {
            return done;
        }
    }
    panic!("the host is too busy");
}

#[tokio::test]
async fn short_output_stands_in_the_result_and_is_bytes() {
    let (runner, _directory) = runner();
    let done = run_quickly(&runner, r"printf '\000\377\001'; printf 'err\n' >&2").await;
    assert!(done.events.is_empty());
    assert_eq!(done.result.stdout, [0, 255, 1]);
    assert_eq!(done.result.stderr, b"err\n");
    assert_eq!(done.result.stdout_summary.sha256, hex::encode(digest(&SHA256, &[0, 255, 1])));
    assert_eq!(done.result.stdout_summary.bytes, 3);
}

#[tokio::test]
async fn no_output_is_fine() {
    let (runner, _directory) = runner();
    let done = run(&runner, shell("true")).await.unwrap();
    assert!(done.events.is_empty() && done.stdout.is_empty() && done.stderr.is_empty());
    assert_eq!(done.result.stderr_summary.sha256, hex::encode(digest(&SHA256, b"")));
}

#[tokio::test]
async fn sixty_four_kilobytes_stand_in_the_result_and_one_more_does_not() {
    let (runner, _directory) = runner();
    let done = run_quickly(&runner, "head -c 65530 /dev/zero; printf 123456 >&2").await;
    assert!(done.events.is_empty());
    let done = run(&runner, shell("head -c 65530 /dev/zero; printf 1234567 >&2")).await.unwrap();
    assert!(!done.events.is_empty());
    assert_eq!((done.stdout.len(), done.stderr.len()), (65_530, 7));
}

#[tokio::test]
async fn output_up_to_the_limit_is_kept_whole() {
    let (runner, _directory) = runner();
    let done = run(&runner, shell("yes 0123456 | head -c 1048576")).await.unwrap();
    assert_eq!(done.stdout, b"0123456\n".repeat(131_072));
    assert_eq!(done.result.stdout_summary.omitted_from, None);
}

#[tokio::test]
async fn a_hundred_megabytes_keep_their_ends_and_their_digest() {
    let (runner, _directory) = runner();
    let start = Instant::now();
    let done = run(&runner, shell("yes 0123456 | head -c 100000000; printf end")).await.unwrap();
    println!("100 MB took {:?}", start.elapsed());
    let mut whole = Context::new(&SHA256);
    let block = b"0123456\n".repeat(12_500);
    (0..1_000).for_each(|_| whole.update(&block));
    whole.update(b"end");
    let summary = &done.result.stdout_summary;
    assert_eq!(summary.sha256, hex::encode(whole.finish()));
    assert_eq!(summary.bytes, 100_000_003);
    assert_eq!(summary.omitted_from, Some(524_288));
    assert_eq!(summary.omitted_bytes, 100_000_003 - 1_048_576);
    assert_eq!(done.stdout[..524_288], b"0123456\n".repeat(65_536)[..]);
    assert!(done.stdout.ends_with(b"0123456\nend"));
    assert!(done.events.iter().all(
        |event| !matches!(event, RunEvent::Output { data, .. } if data.is_empty() || data.len() > 65_536)
    ));
}

#[tokio::test]
async fn slow_output_is_told_while_the_command_runs() {
    let (runner, directory) = runner();
    let gate = directory.path().join("gate");
    let text = format!(
        "echo one; echo two >&2; while ! test -e {}; do sleep 0.05; done; echo three",
        gate.display()
    );
    let mut running = runner.start(shell(&text)).await.unwrap();
    let mut first = vec![running.next().await, running.next().await];
    first.sort_by_key(|event| match event {
        RunEvent::Output { stream, .. } => *stream,
        other => panic!("{other:?}"),
    });
    let output = |stream, offset, data: &[u8]| RunEvent::Output { stream, offset, data: data.to_vec() };
    assert_eq!(first, [output(Stream::Stdout, 0, b"one\n"), output(Stream::Stderr, 0, b"two\n")]);
    std::fs::write(gate, "").unwrap();
    let third = running.next().await;
    assert_eq!(third, output(Stream::Stdout, 4, b"three\n"));
    assert!(matches!(running.next().await, RunEvent::Finished(_)));
}

#[tokio::test]
async fn beyond_the_first_half_bytes_are_counted_and_the_last_half_follows() {
    let (runner, directory) = runner();
    let gate = directory.path().join("gate");
    let text =
        format!("printf 0123456789; while ! test -e {}; do sleep 0.05; done; printf abcdef", gate.display());
    let mut spec = shell(&text);
    spec.output_limit = 8;
    let mut running = runner.start(spec).await.unwrap();
    let output =
        |offset, data: &[u8]| RunEvent::Output { stream: Stream::Stdout, offset, data: data.to_vec() };
    assert_eq!(running.next().await, output(0, b"0123"));
    assert_eq!(running.next().await, RunEvent::Count { stream: Stream::Stdout, bytes: 10 });
    std::fs::write(gate, "").unwrap();
    let mut last = running.next().await;
    while matches!(last, RunEvent::Count { .. }) {
        last = running.next().await;
    }
    assert_eq!(last, output(12, b"cdef"));
    let RunEvent::Finished(result) = running.next().await else { panic!("not finished") };
    let summary = &result.stdout_summary;
    assert_eq!((summary.bytes, summary.omitted_from, summary.omitted_bytes), (16, Some(4), 8));
}

#[tokio::test]
async fn a_listener_that_does_not_listen_holds_nothing_up() {
    let (runner, directory) = runner();
    let done = directory.path().join("done");
    let text =
        format!("head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; echo 1 > {}", done.display());
    let running = runner.start(shell(&text)).await.unwrap();
    assert_eq!(crate::support::number_in(&done).await, 1);
    let done = finish(running).await;
    assert_eq!(done.result.stdout_summary.bytes, 20_000_000);
    assert_eq!(done.result.stderr_summary.bytes, 20_000_000);
    assert_eq!(done.result.outcome, signet_common::messages::Outcome::Succeeded);
    assert!(done.result.duration_ms < 20_000);
}

#[tokio::test]
async fn endless_output_does_not_delay_a_time_out() {
    let (runner, _directory) = runner();
    let mut spec = shell("yes");
    spec.timeout = Duration::from_millis(300);
    let done = run(&runner, spec).await.unwrap();
    assert_eq!(done.result.outcome, signet_common::messages::Outcome::TimedOut);
    assert!(done.result.duration_ms < 4_000, "{}", done.result.duration_ms);
}
