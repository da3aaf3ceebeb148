//! The journal on a real directory.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use signet_common::messages::{CommandResult, Outcome, Stream, StreamSummary};

use super::log::Log;
use super::*;
use crate::limits::{CONFIRMED_SECONDS_MAX, RESERVE_BYTES};
use crate::used::Used;

const NOW: Micros = Micros::from_seconds(1_000_000);

fn envelope() -> Envelope {
    Envelope { payload_type: "t".into(), keyid: "k".into(), sig: "s".into(), body: b"{}".as_slice().into() }
}

fn accepted(jti: &Jti) -> Entry {
    let event = Event::Accepted { jti: jti.clone(), at: 1 };
    Entry { event, exp: 1_000_600, message: Some(envelope()) }
}

fn started(jti: &Jti) -> Entry {
    Entry { event: Event::Started { jti: jti.clone(), at: 2 }, exp: 0, message: None }
}

fn output(jti: &Jti, size: usize) -> Entry {
    let event = Event::Output { jti: jti.clone(), stream: Stream::Stdout, offset: 0, data: vec![b'x'; size] };
    Entry { event, exp: 0, message: None }
}

fn result(jti: &Jti) -> Entry {
    let result = CommandResult {
        outcome: Outcome::Succeeded,
        reason: None,
        exit_code: Some(0),
        signal: None,
        stdout: vec![],
        stderr: vec![],
        stdout_summary: StreamSummary::default(),
        stderr_summary: StreamSummary::default(),
        killed: 0,
        duration_ms: 0,
        deploy: None,
    };
    let event = Event::Result { jti: jti.clone(), at: 3, result: Box::new(result) };
    Entry { event, exp: 1_000_600, message: None }
}

fn create(root: &Path) -> Log {
    new_log(root, "boot").unwrap()
}

fn reopen(root: &Path) -> (Log, Recovered) {
    match open::open(root, &log_dir(root)).unwrap() {
        Found::Log(log, recovered) => (*log, recovered),
        other => panic!("{other:?}"),
    }
}

fn put(log: &mut Log, entries: &[Entry], purpose: Purpose) -> Result<(), NotWritten> {
    log.commit(&[(entries, purpose)], NOW).unwrap().remove(0)
}

fn read_all(log: &Log) -> Vec<Line> {
    let head = log.head();
    Reader::new(log.dir.clone(), head.log_id.clone()).after(0, &head, usize::MAX, usize::MAX).unwrap()
}

#[test]
fn what_was_synced_is_found_again() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (Jti::generate(), Jti::generate());
    let mut log = create(root.path());
    put(&mut log, &[accepted(&one), started(&one)], Purpose::Work).unwrap();
    put(&mut log, &[accepted(&two)], Purpose::Work).unwrap();
    put(&mut log, &[output(&one, 10), result(&one)], Purpose::End).unwrap();
    let head = log.head();
    drop(log);

    let (mut log, recovered) = reopen(root.path());
    assert_eq!(log.head(), head);
    assert_eq!(recovered.unfinished.len(), 1);
    assert_eq!((&recovered.unfinished[0].jti, recovered.unfinished[0].started), (&two, false));
    assert_eq!(recovered.known.get(&number(&one)), Some(&1_000_600));
    put(&mut log, &[started(&two)], Purpose::Progress).unwrap();
    drop(log);

    let (log, recovered) = reopen(root.path());
    assert!(recovered.unfinished[0].started);
    let mut chain = ChainHash::genesis(&log.meta.log_id);
    let lines = read_all(&log);
    assert_eq!(lines.len(), 6);
    for (index, line) in lines.into_iter().enumerate() {
        let event = signet_common::chain::Chained::parse(line.text).unwrap();
        assert!(event.continues(chain, index as u64));
        chain = event.chain;
    }
}

#[test]
fn a_torn_tail_is_cut_and_a_damaged_middle_is_a_new_log() {
    let root = tempfile::tempdir().unwrap();
    let jti = Jti::generate();
    let mut log = create(root.path());
    put(&mut log, &[accepted(&jti)], Purpose::Work).unwrap();
    let whole = log.active.len;
    put(&mut log, &[started(&jti)], Purpose::Progress).unwrap();
    put(&mut log, &[result(&jti)], Purpose::End).unwrap();
    let path = segment::path(&log.dir, 1);
    let old = log.meta.log_id.clone();
    drop(log);
    let bytes = fs::read(&path).unwrap();

    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (log, recovered) = reopen(root.path());
    assert_eq!(log.seq, 2);
    assert!(recovered.unfinished[0].started);
    drop(log);

    let mut damaged = bytes.clone();
    damaged[usize::try_from(whole).unwrap() - 3] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let opened = Journal::open(root.path(), "boot").unwrap();
    let head = opened.journal.head().borrow().clone();
    assert_eq!((head.seq, head.not_before, opened.recovered.unfinished.len()), (0, None, 0));
    assert_ne!(head.log_id, old);
    assert_eq!(fs::read_dir(root.path()).unwrap().filter(|e| is_old(&e.as_ref().unwrap().path())).count(), 1);
}

fn is_old(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "old")
}

#[test]
fn a_crash_while_a_segment_begins_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let jti = Jti::generate();
    let mut log = create(root.path());
    put(&mut log, &[accepted(&jti)], Purpose::Work).unwrap();
    drop(log);
    fs::write(segment::path(&log_dir(root.path()), 2), b"torn").unwrap();
    let (mut log, recovered) = reopen(root.path());
    assert_eq!((log.seq, recovered.unfinished.len(), log.active.ordinal), (1, 1, 1));
    put(&mut log, &[result(&jti)], Purpose::End).unwrap();
    assert_eq!(reopen(root.path()).0.seq, 2);
}

#[test]
fn confirmed_segments_go_but_ids_and_open_messages_stay() {
    let root = tempfile::tempdir().unwrap();
    let (done, open) = (Jti::generate(), Jti::generate());
    let mut log = create(root.path());
    log.segment_bytes = 1;
    put(&mut log, &[accepted(&done), result(&done)], Purpose::End).unwrap();
    put(&mut log, &[accepted(&open)], Purpose::Work).unwrap();
    put(&mut log, &[started(&open)], Purpose::Progress).unwrap();
    assert!(log.closed.len() >= 2);
    let later = NOW.plus_seconds(CONFIRMED_SECONDS_MAX + 1);
    log.retain(later, 0).unwrap();
    assert_eq!(read_all(&log).len(), 4, "unconfirmed events are never dropped");

    log.confirm(4, 0);
    log.retain(NOW, 0).unwrap();
    assert_eq!(read_all(&log).len(), 4, "young ones are kept");
    // The ids expire at 1,000,600, before this; so time is turned back for the ids alone.
    for closed in &mut log.closed {
        closed.newest = Micros::from_seconds(0);
    }
    log.retain(NOW, 0).unwrap();
    let left = read_all(&log);
    assert_eq!(left[0].seq, 3, "a message that is still open holds nothing back");
    assert!(
        left[0].text.contains("\"type\":\"gap\"") && left[0].text.contains("\"from\":1"),
        "{}",
        left[0].text
    );
    assert_eq!(left.len(), 2);
    drop(log);

    let (mut log, recovered) = reopen(root.path());
    assert!(recovered.known.contains_key(&number(&done)), "an id outlives its segment");
    let message = Unfinished { jti: open.clone(), exp: 1_000_600, envelope: envelope(), started: true };
    assert_eq!(recovered.unfinished, std::slice::from_ref(&message));
    assert_eq!(read_all(&log), left);

    // Once more from where it was carried to; `started` stands in a segment that is gone by then.
    log.segment_bytes = 1;
    put(&mut log, &[output(&open, 1)], Purpose::Progress).unwrap();
    log.confirm(5, 0);
    for closed in &mut log.closed {
        closed.newest = Micros::from_seconds(0);
    }
    log.retain(NOW, 0).unwrap();
    assert_eq!(read_all(&log).len(), 2);
    drop(log);
    let (mut log, recovered) = reopen(root.path());
    assert_eq!(recovered.unfinished, [message]);
    put(&mut log, &[result(&open)], Purpose::End).unwrap();
    drop(log);
    assert_eq!(reopen(root.path()).1.unfinished, []);
}

/// `accepted`, of a message with a statement that counts until `not_after`; and how that is known.
fn approved(jti: &Jti, not_after: i64) -> (Entry, u128) {
    use base64::Engine as _;
    let text = format!(
        r#"{{"kind":"command","task_id":"{jti}","requester":"a","requested_at":1,"not_after":{not_after},"agents":["{}"],"message":{{}}}}"#,
        "a".repeat(40)
    );
    let statement = base64::engine::general_purpose::STANDARD.encode(&text);
    // JSON can spell a name in many ways.
    let body = format!(r#"{{"\u0061pproval":{{"statement":"{statement}","signatures":["x"]}},"more":[1]}}"#);
    let message = Envelope { body: body.into_bytes().into(), ..envelope() };
    (Entry { message: Some(message), ..accepted(jti) }, Used::of(text.as_bytes()).id)
}

#[test]
fn a_used_statement_is_known_until_it_is_over() {
    let root = tempfile::tempdir().unwrap();
    let until = NOW.seconds() + 5_000;
    let (ended, open, over) = (Jti::generate(), Jti::generate(), Jti::generate());
    let ((first, a), (second, b), (third, c)) =
        (approved(&ended, until), approved(&open, until), approved(&over, NOW.seconds() + 10));
    let known = |recovered: &Recovered| [a, b, c].map(|id| recovered.known.get(&id).copied());
    let all = [Some(until), Some(until), Some(NOW.seconds() + 10)];
    let mut log = create(root.path());
    log.segment_bytes = 1;
    put(&mut log, &[first, result(&ended)], Purpose::End).unwrap();
    put(&mut log, &[second, third, result(&over)], Purpose::Work).unwrap();
    drop(log);
    let (mut log, recovered) = reopen(root.path());
    assert_eq!(known(&recovered), all);

    // Its events are confirmed and go, again and again; the second message stays open all the while.
    for round in 0..3 {
        log.segment_bytes = 1;
        put(&mut log, &[output(&open, 1)], Purpose::Progress).unwrap();
        log.confirm(log.seq, 0);
        for closed in &mut log.closed {
            closed.newest = Micros::from_seconds(0);
        }
        log.retain(NOW.plus_seconds(1_000), 0).unwrap();
        drop(log);
        let (again, recovered) = reopen(root.path());
        log = again;
        let left = if round == 0 { known(&recovered) } else { [Some(until), Some(until), None] };
        assert_eq!(known(&recovered), left);
        assert_eq!(left[..2], all[..2]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_restart_nor_clean_up_forgets_a_used_statement(
        steps in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..12),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut log = create(root.path());
        let mut used = Vec::new();
        for (ends, clean, again) in steps {
            log.segment_bytes = 1_500;
            let jti = Jti::generate();
            let (entry, id) = approved(&jti, NOW.seconds() + 600);
            used.push(id);
            let mut entries = vec![entry];
            entries.extend(ends.then(|| result(&jti)));
            put(&mut log, &entries, Purpose::Work).unwrap();
            if clean {
                log.confirm(log.seq, 0);
                for closed in &mut log.closed {
                    closed.newest = Micros::from_seconds(0);
                }
                log.retain(NOW, 0).unwrap();
            }
            if again {
                drop(log);
                let (opened, recovered) = reopen(root.path());
                prop_assert!(used.iter().all(|id| recovered.known.contains_key(id)));
                log = opened;
            }
        }
        drop(log);
        let recovered = reopen(root.path()).1;
        prop_assert!(used.iter().all(|id| recovered.known.contains_key(id)));
    }
}

#[test]
fn a_clock_that_was_ahead_is_not_remembered() {
    let root = tempfile::tempdir().unwrap();
    let jti = Jti::generate();
    let mut log = create(root.path());
    log.segment_bytes = 1;
    let year = NOW.plus_seconds(365 * 86_400);
    for entry in [accepted(&jti), started(&jti), result(&jti)] {
        log.commit(&[(&[entry], Purpose::End)], year).unwrap().remove(0).unwrap();
        log.retain(year, 7).unwrap();
    }
    log.confirm(3, 8);
    drop(log);
    assert_eq!(reopen(root.path()).1.time, 8);
}

#[test]
fn what_is_refused_when() {
    let (disk, journal) = (Some(BusyReason::DiskFull), Some(BusyReason::JournalFull));
    let table = [
        (Purpose::Work, [false, true, true]),
        (Purpose::Progress, [false, true, false]),
        (Purpose::End, [false, false, false]),
    ];
    for (purpose, expected) in table {
        assert_eq!([None, disk, journal].map(|trouble| purpose.refused(trouble).is_some()), expected);
    }
}

#[test]
fn a_full_disk_refuses_work_and_still_takes_results() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (Jti::generate(), Jti::generate());
    let mut log = create(root.path());
    put(&mut log, &[accepted(&one)], Purpose::Work).unwrap();
    log.quota = Some(log.active.len + 700);
    let full = Err(NotWritten::Full(BusyReason::DiskFull));
    assert_eq!(put(&mut log, &[output(&one, 5_000)], Purpose::Progress), full);
    assert_eq!(log.head().trouble, Some(BusyReason::DiskFull));
    assert!(root.path().join("reserve").exists(), "it is for ends alone");
    assert_eq!(put(&mut log, &[accepted(&two)], Purpose::Work), full);
    assert_eq!(put(&mut log, &[output(&one, 1)], Purpose::Progress), full, "what room there is is for ends");
    let (result, work) = ([result(&one)], [accepted(&two)]);
    let groups: [log::Group<'_>; 2] = [(&work, Purpose::Work), (&result, Purpose::End)];
    assert_eq!(log.commit(&groups, NOW).unwrap(), [full, Ok(())]);
    log.quota = Some(log.active.len);
    assert_eq!(put(&mut log, &result, Purpose::End), full);
    assert!(!root.path().join("reserve").exists());
    log.quota = None;
    log.retain(NOW, 0).unwrap();
    assert!(root.path().join("reserve").exists());
    assert_eq!(log.head().trouble, None);
    put(&mut log, &[accepted(&two)], Purpose::Work).unwrap();
    let seq = log.seq;
    drop(log);
    assert_eq!(reopen(root.path()).0.seq, seq);
}

#[test]
fn on_a_disk_that_is_truly_full_only_ends_use_the_reserve() {
    let root = tempfile::tempdir().unwrap();
    let size = RESERVE_BYTES + 4 * 1024 * 1024;
    signet_testkit::on_a_disk_of(size, root.path(), || {
        let (reserve, filler) = (root.path().join("reserve"), root.path().join("filler"));
        let jti = Jti::generate();
        let mut log = create(root.path());
        put(&mut log, &[accepted(&jti), started(&jti)], Purpose::Work).unwrap();
        let fill = || fs::write(&filler, vec![b'x'; 32 * 1024 * 1024]).unwrap_err();
        assert!(log::is_full(&fill()));

        let full = Err(NotWritten::Full(BusyReason::DiskFull));
        assert_eq!(put(&mut log, &[output(&jti, 60_000)], Purpose::Progress), full);
        assert_eq!(log.head().trouble, Some(BusyReason::DiskFull));
        log.retain(NOW, 0).unwrap();
        assert_eq!(log.head().trouble, Some(BusyReason::DiskFull), "it still is");
        assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);

        // More than the last page of the segment has room for.
        for _ in 0..20 {
            put(&mut log, &[result(&jti)], Purpose::End).unwrap();
        }
        assert!(!reserve.exists());
        let seq = log.seq;
        drop(log);

        let (mut log, recovered) = reopen(root.path());
        assert_eq!((log.seq, recovered.unfinished.len()), (seq, 0));
        fill();
        log.retain(NOW, 0).unwrap();
        assert_eq!(log.head().trouble, Some(BusyReason::DiskFull));
        fs::remove_file(&filler).unwrap();
        log.retain(NOW, 0).unwrap();
        assert_eq!(log.head().trouble, None);
        assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
        put(&mut log, &[output(&jti, 60_000)], Purpose::Progress).unwrap();
    });
}

#[test]
fn a_reader_goes_anywhere() {
    let root = tempfile::tempdir().unwrap();
    let jti = Jti::generate();
    let mut log = create(root.path());
    log.segment_bytes = 600;
    for _ in 0..20 {
        put(&mut log, &[started(&jti), started(&jti)], Purpose::Progress).unwrap();
    }
    let head = log.head();
    let all = read_all(&log);
    assert_eq!(all.len(), 40);
    let mut reader = Reader::new(log.dir.clone(), head.log_id.clone());
    for from in [0_usize, 39, 17, 18, 3, 40] {
        let got = reader.after(from as u64, &head, 2, usize::MAX).unwrap();
        assert_eq!(got, all[from..(from + 2).min(40)]);
        let chain = if from == 0 { ChainHash::genesis(&head.log_id) } else { all[from - 1].chain };
        assert_eq!(reader.chain_at(from as u64, &head).unwrap(), Some(chain));
    }
    let some = reader.after(0, &head, 40, all[0].text.len() * 3).unwrap();
    assert!((2..5).contains(&some.len()));
    assert_eq!(reader.after(some.len() as u64, &head, 40, usize::MAX).unwrap(), all[some.len()..]);
    assert_eq!(reader.chain_at(41, &head).unwrap(), None);
}

#[tokio::test]
async fn many_appends_share_one_sync_and_the_head_follows() {
    let root = tempfile::tempdir().unwrap();
    let opened = Journal::open(root.path(), "boot").unwrap();
    let journal = opened.journal;
    let jtis: Vec<Jti> = (0..50).map(|_| Jti::generate()).collect();
    let appends = jtis.iter().map(|j| journal.append(vec![accepted(j)], Purpose::Work, NOW));
    assert!(futures_util::future::join_all(appends).await.into_iter().all(|r| r.is_ok()));
    assert_eq!(journal.head().borrow().seq, 50);
    journal.begin_at(7).await.unwrap();
    journal.confirm(20, 0).await;
    journal.ping().await.unwrap();
    let head = journal.head().borrow().clone();
    assert_eq!((head.not_before, head.confirmed), (Some(7), 20));
    journal.new_log("boot".into()).await.unwrap();
    let head = journal.head().borrow().clone();
    assert_eq!((head.seq, head.not_before), (0, None));
    drop(journal);
    opened.ended.await.unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn appending_and_reopening_never_loses_or_invents(
        batches in proptest::collection::vec((1usize..4, 0usize..300, any::<bool>()), 1..12),
        torn in 0u64..200,
    ) {
        let root = tempfile::tempdir().unwrap();
        let jti = Jti::generate();
        let mut log = create(root.path());
        log.segment_bytes = 1_500;
        let mut expected = Vec::new();
        for (count, size, again) in batches {
            let entries: Vec<Entry> = (0..count).map(|_| output(&jti, size)).collect();
            put(&mut log, &entries, Purpose::Progress).unwrap();
            expected = read_all(&log);
            if again {
                // A write that never came to its sync.
                let path = segment::path(&log.dir, log.active.ordinal);
                let len = log.active.len;
                let batch = log.next_batch;
                drop(log);
                let mut tail = Vec::new();
                let torn_entry = record::Content::Output { text: "x".repeat(100) };
                record::encode(&mut tail, batch, true, &torn_entry);
                tail.truncate(usize::try_from(torn).unwrap().min(tail.len() - 1));
                let mut bytes = fs::read(&path).unwrap();
                prop_assert_eq!(bytes.len() as u64, len);
                bytes.extend_from_slice(&tail);
                fs::write(&path, bytes).unwrap();
                log = reopen(root.path()).0;
                log.segment_bytes = 1_500;
                prop_assert_eq!(&read_all(&log), &expected);
            }
        }
        prop_assert_eq!(read_all(&reopen(root.path()).0), expected);
    }
}
