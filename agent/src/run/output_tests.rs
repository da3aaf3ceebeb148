use std::time::Duration;

use aws_lc_rs::digest::digest;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// Everything that a capture gives when it is asked whenever it is due, then ended.
fn told(capture: &mut Capture, end: Instant) -> Vec<RunEvent> {
    let mut events = Vec::new();
    while let Some(due) = capture.due().filter(|due| *due <= end) {
        events.extend(capture.take(due.max(end)));
    }
    events.extend(std::iter::from_fn(|| capture.take_rest(end)));
    events
}

/// The stream as a reader puts it together: bytes where they were told, `None` elsewhere.
fn assembled(events: &[RunEvent], stream: Stream, length: usize) -> Vec<Option<u8>> {
    let mut whole = vec![None; length];
    let mut next = 0;
    for event in events {
        match event {
            RunEvent::Output { stream: of, offset, data } if *of == stream => {
                let offset = usize::try_from(*offset).unwrap();
                assert!(offset >= next, "in order");
                assert!(!data.is_empty() && data.len() <= OUTPUT_CHUNK_BYTES_MAX);
                for (at, byte) in data.iter().enumerate() {
                    whole[offset + at] = Some(*byte);
                }
                next = offset + data.len();
            }
            _ => {}
        }
    }
    whole
}

#[test]
fn short_and_quick_output_stands_in_the_result_alone() {
    let start = Instant::now();
    let mut capture = Capture::new(1024 * 1024, start);
    capture.push(Stream::Stdout, b"out", start);
    capture.push(Stream::Stderr, b"err", start + SECOND / 2);
    assert_eq!(capture.due(), Some(start + SECOND));
    assert_eq!(capture.take_rest(start + SECOND), None);
    let captured = capture.finish();
    assert_eq!((captured.stdout.as_slice(), captured.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
    assert_eq!(captured.stdout_summary.omitted_from, None);
}

#[test]
fn a_command_without_output_has_the_digest_of_nothing() {
    let start = Instant::now();
    let mut capture = Capture::new(10, start);
    assert_eq!(capture.due(), None);
    assert_eq!(capture.take_rest(start + 9 * SECOND), None);
    let summary = capture.finish().stdout_summary;
    assert_eq!(summary.sha256, hex::encode(digest(&SHA256, b"")));
    assert_eq!(summary.bytes, 0);
}

#[test]
fn more_than_the_result_holds_is_told_at_once() {
    let start = Instant::now();
    let mut capture = Capture::new(1024 * 1024, start);
    capture.push(Stream::Stdout, &bytes(RESULT_OUTPUT_BYTES_MAX), start);
    assert!(capture.due().unwrap() > start, "up to 64 KiB may still go into the result");
    capture.push(Stream::Stderr, b"x", start);
    assert!(matches!(capture.take(start), Some(RunEvent::Output { offset: 0, .. })));
}

#[test]
fn after_a_second_output_is_told_every_second() {
    let start = Instant::now();
    let mut capture = Capture::new(1024, start);
    capture.push(Stream::Stdout, b"a", start);
    assert_eq!(capture.take(start + SECOND / 2), None);
    assert!(capture.take(start + SECOND).is_some());
    capture.push(Stream::Stdout, b"b", start + 2 * SECOND);
    assert_eq!(capture.due(), Some(start + 3 * SECOND));
    let event = capture.take(start + 3 * SECOND).unwrap();
    assert_eq!(event, RunEvent::Output { stream: Stream::Stdout, offset: 1, data: b"b".to_vec() });
    assert_eq!(capture.take_rest(start + 3 * SECOND), None);
    assert!(capture.finish().stdout.is_empty());
}

#[test]
fn beyond_the_first_half_only_counts_are_told_once_a_second() {
    let start = Instant::now();
    let mut capture = Capture::new(100, start);
    capture.push(Stream::Stdout, &bytes(60), start);
    let now = start + SECOND;
    assert!(
        matches!(capture.take(now), Some(RunEvent::Output { offset: 0, ref data, .. }) if data.len() == 50)
    );
    capture.push(Stream::Stdout, &bytes(500), now);
    assert_eq!(capture.take(now), None);
    let count = RunEvent::Count { stream: Stream::Stdout, bytes: 560 };
    assert_eq!(capture.take(now + SECOND), Some(count));
    assert_eq!(capture.due(), None);
}

proptest! {
    #[test]
    fn first_and_last_half_are_kept_and_everything_is_counted(
        limit in 0u64..200_000,
        pieces in proptest::collection::vec((any::<bool>(), 0usize..90_000, 0u64..700), 0..12),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut capture = Capture::new(limit, start);
        let mut written = [Vec::new(), Vec::new()];
        let mut events = Vec::new();
        for (to_stderr, length, pause) in pieces {
            now += Duration::from_millis(pause);
            while let Some(event) = capture.take(now) {
                events.push(event);
            }
            let data = bytes(length);
            let stream = if to_stderr { Stream::Stderr } else { Stream::Stdout };
            written[usize::from(to_stderr)].extend_from_slice(&data);
            capture.push(stream, &data, now);
        }
        let inline = events.is_empty()
            && now <= start + SECOND
            && written[0].len() + written[1].len() <= RESULT_OUTPUT_BYTES_MAX;
        events.extend(told(&mut capture, now));
        prop_assert!(!inline || events.is_empty());
        let captured = capture.finish();
        let streams = [
            (Stream::Stdout, &written[0], captured.stdout, captured.stdout_summary),
            (Stream::Stderr, &written[1], captured.stderr, captured.stderr_summary),
        ];
        for (stream, written, kept, summary) in streams {
            let total = written.len() as u64;
            prop_assert_eq!(summary.bytes, total);
            prop_assert_eq!(&summary.sha256, &hex::encode(digest(&SHA256, written)));
            prop_assert_eq!(summary.omitted_bytes, total.saturating_sub(limit));
            prop_assert_eq!(summary.omitted_from, (total > limit).then_some(limit / 2));
            let from = usize::try_from(summary.omitted_from.unwrap_or(total)).unwrap();
            let until = from + usize::try_from(summary.omitted_bytes).unwrap();
            if inline {
                prop_assert_eq!(kept, [&written[..from], &written[until..]].concat());
                continue;
            }
            prop_assert!(kept.is_empty());
            for (at, byte) in assembled(&events, stream, written.len()).into_iter().enumerate() {
                let expected = (at < from || at >= until).then(|| written[at]);
                prop_assert_eq!(byte, expected, "at {}", at);
            }
        }
    }
}
