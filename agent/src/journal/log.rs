//! One log on the disk: appending, rotation, and what is removed when.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use signet_common::chain::{ChainHash, Chained};
use signet_common::fault::{self, Point};
use signet_common::ids::{Jti, LogId};
use signet_common::messages::{BusyReason, Event};
use signet_common::time::Micros;

use super::meta::Meta;
use super::record::{self, Content, SegmentStart};
use super::reserve::Reserve;
use super::segment::{self, NextBatch};
use super::{Entry, Head, NotWritten, Purpose};
use crate::limits::{
    CONFIRMED_BYTES_MAX, CONFIRMED_SECONDS_MAX, LATE_SECONDS_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES,
    UNCONFIRMED_BYTES_MAX,
};
use crate::used::Used;

/// A segment that is complete.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub ordinal: u64,
    pub last_seq: u64,
    pub bytes: u64,
    /// When it was last written to.
    pub newest: Micros,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Active {
    pub ordinal: u64,
    pub file: File,
    pub len: u64,
}

/// A message without an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    /// The segment in which its `accepted` stands.
    pub ordinal: u64,
    pub started: bool,
}

/// See the module. Only the journal's thread has it.
#[derive(Debug)]
pub(super) struct Log {
    pub root: PathBuf,
    pub dir: PathBuf,
    pub meta: Meta,
    pub closed: VecDeque<Closed>,
    pub active: Active,
    pub next_batch: u32,
    pub seq: u64,
    pub chain: ChainHash,
    /// The last event that should be reported at once.
    pub urgent: u64,
    pub open: HashMap<Jti, Open>,
    pub reserve: Reserve,
    /// The time that `log.json` shows, so that an idle agent writes nothing.
    pub saved_time: i64,
    /// How large a segment grows.
    pub segment_bytes: u64,
    /// For tests: the active segment may not grow beyond this.
    #[cfg(test)]
    pub quota: Option<u64>,
}

/// Entries that are written together or not at all.
pub(super) type Group<'a> = (&'a [Entry], Purpose);

impl Log {
    /// Begins an empty log. Its `log.json` comes last: without it there is no log.
    pub(super) fn create(root: &Path, dir: PathBuf, meta: Meta) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for ordinal in segment::list(&dir)? {
            fs::remove_file(segment::path(&dir, ordinal))?;
        }
        let chain = ChainHash::genesis(&meta.log_id);
        let start = SegmentStart { log_id: meta.log_id.clone(), first_seq: 1, chain, time: meta.time };
        let active = begin_segment(&dir, 1, 0, start)?;
        meta.write(&dir)?;
        segment::sync_dir(root)?;
        Ok(Self {
            root: root.to_owned(),
            dir,
            chain,
            meta,
            closed: VecDeque::new(),
            active,
            next_batch: 1,
            seq: 0,
            urgent: 0,
            open: HashMap::new(),
            reserve: Reserve::take(root),
            saved_time: 0,
            segment_bytes: SEGMENT_BYTES,
            #[cfg(test)]
            quota: None,
        })
    }

    /// Where the log stands.
    pub(super) fn head(&self) -> Head {
        let unconfirmed = self.unconfirmed_bytes();
        let trouble = if self.reserve.is_short() {
            Some(BusyReason::DiskFull)
        } else if unconfirmed >= UNCONFIRMED_BYTES_MAX {
            Some(BusyReason::JournalFull)
        } else {
            None
        };
        Head {
            log_id: self.meta.log_id.clone(),
            seq: self.seq,
            chain: self.chain,
            urgent: self.urgent,
            confirmed: self.meta.confirmed,
            not_before: self.meta.not_before,
            unconfirmed,
            trouble,
        }
    }

    fn unconfirmed_bytes(&self) -> u64 {
        let closed: u64 =
            self.closed.iter().rev().take_while(|s| s.last_seq > self.meta.confirmed).map(|s| s.bytes).sum();
        closed + if self.seq > self.meta.confirmed { self.active.len } else { 0 }
    }

    /// Writes the groups with one sync. A group may be refused; the error is one after which nothing here can be
    /// trusted any more, because a failed sync may have lost what was written before.
    pub(super) fn commit(
        &mut self,
        groups: &[Group<'_>],
        now: Micros,
    ) -> io::Result<Vec<Result<(), NotWritten>>> {
        if self.active.len >= self.segment_bytes {
            self.rotate(now)?;
        }
        let trouble = self.head().trouble;
        let mut results: Vec<Result<(), NotWritten>> =
            groups.iter().map(|(_, purpose)| purpose.refused(trouble).map_or(Ok(()), Err)).collect();
        if self.written(groups, &results)? {
            return Ok(results);
        }
        for (result, (_, purpose)) in results.iter_mut().zip(groups) {
            if *purpose != Purpose::End {
                *result = Err(NotWritten::Full(BusyReason::DiskFull));
            }
        }
        // Ends alone may find room; else they have the reserve.
        let written =
            self.written(groups, &results)? || self.reserve.release() && self.written(groups, &results)?;
        if !written {
            results.fill(Err(NotWritten::Full(BusyReason::DiskFull)));
        }
        Ok(results)
    }

    /// Writes what is wanted; false when the disk is full.
    fn written(&mut self, groups: &[Group<'_>], wanted: &[Result<(), NotWritten>]) -> io::Result<bool> {
        match self.write(groups, wanted) {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => {
                self.reserve.ran_short(&error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, groups: &[Group<'_>], wanted: &[Result<(), NotWritten>]) -> io::Result<()> {
        let entries: Vec<&Entry> =
            groups.iter().zip(wanted).filter(|(_, w)| w.is_ok()).flat_map(|((e, _), _)| e.iter()).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let (mut seq, mut chain, mut urgent) = (self.seq, self.chain, self.urgent);
        let mut buffer = Vec::with_capacity(entries.len() * 512);
        for (index, entry) in entries.iter().enumerate() {
            let chained = Chained::next(chain, seq + 1, entry.event.clone()).map_err(io::Error::other)?;
            (seq, chain) = (chained.seq, chained.chain);
            if matches!(entry.event, Event::Result { .. } | Event::Rejected { .. }) {
                urgent = seq;
            }
            let last = index + 1 == entries.len();
            record::encode(&mut buffer, self.next_batch, last, &content(entry, chained.text));
        }
        self.write_buffer(&buffer)?;
        (self.seq, self.chain, self.urgent) = (seq, chain, urgent);
        for entry in entries {
            self.track(entry);
        }
        Ok(())
    }

    /// Appends one batch and syncs it. On a full disk nothing of it stays.
    fn write_buffer(&mut self, buffer: &[u8]) -> io::Result<()> {
        let end = self.active.len + buffer.len() as u64;
        #[cfg(test)]
        if self.quota.is_some_and(|quota| end > quota) {
            return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        }
        if let Err(error) = self.active.file.write_all_at(buffer, self.active.len) {
            self.active.file.set_len(self.active.len)?;
            return Err(error);
        }
        fault::hit(Point::AgentBeforeSync);
        // A full disk that shows only here (network file systems) can't be undone: what was synced is uncertain.
        self.active.file.sync_data().map_err(|e| io::Error::other(format!("fdatasync: {e}")))?;
        fault::hit(Point::AgentAfterSync);
        self.active.len = end;
        self.next_batch = self.next_batch.wrapping_add(1);
        Ok(())
    }

    fn track(&mut self, entry: &Entry) {
        match &entry.event {
            Event::Accepted { jti, .. } => {
                self.open.insert(jti.clone(), Open { ordinal: self.active.ordinal, started: false });
            }
            Event::Started { jti, .. } => {
                if let Some(open) = self.open.get_mut(jti) {
                    open.started = true;
                }
            }
            Event::Result { jti, .. } | Event::Rejected { jti, .. } => {
                self.open.remove(jti);
            }
            Event::Output { .. } | Event::Gap { .. } => {}
        }
    }

    /// Closes the active segment and begins another. Without room for that the active one grows on.
    pub(super) fn rotate(&mut self, now: Micros) -> io::Result<()> {
        let start = SegmentStart {
            log_id: self.meta.log_id.clone(),
            first_seq: self.seq + 1,
            chain: self.chain,
            time: self.meta.time,
        };
        let ordinal = self.active.ordinal + 1;
        let next = match begin_segment(&self.dir, ordinal, self.next_batch, start) {
            Ok(next) => next,
            Err(error) if is_full(&error) => {
                return match fs::remove_file(segment::path(&self.dir, ordinal)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                    _ => Ok(()),
                };
            }
            Err(error) => return Err(error),
        };
        self.next_batch = self.next_batch.wrapping_add(1);
        let old = std::mem::replace(&mut self.active, next);
        self.closed.push_back(Closed {
            ordinal: old.ordinal,
            last_seq: self.seq,
            bytes: old.len,
            newest: now,
        });
        Ok(())
    }

    /// The controller has everything up to `seq`. A lower number than before is believed too: its database may have
    /// been restored.
    pub(super) fn confirm(&mut self, seq: u64, verified: i64) {
        self.meta.confirmed = seq.min(self.seq);
        self.meta.time = self.meta.time.max(verified);
        self.save("confirmed events");
    }

    /// The controller answered the log's first hello at `time`, by its clock. On a full disk the log has not begun.
    pub(super) fn begin_at(&mut self, time: i64) -> io::Result<Result<(), NotWritten>> {
        if self.meta.not_before.is_some() {
            return Ok(Ok(()));
        }
        self.meta.not_before = Some(time);
        match self.meta.write(&self.dir) {
            Err(error) if is_full(&error) => {
                self.reserve.ran_short(&error);
                self.meta.not_before = None;
                Ok(Err(NotWritten::Full(BusyReason::DiskFull)))
            }
            other => other.map(Ok),
        }
    }

    /// Notes in which boot this log is worked on.
    pub(super) fn booted(&mut self, boot_id: String) {
        self.meta.boot_id = boot_id;
        self.save("boot id");
    }

    fn save(&self, what: &str) {
        // Only a hint for the next start: the hello then asks the controller again.
        if let Err(error) = self.meta.write(&self.dir) {
            tracing::warn!(%error, "{what} could not be noted in log.json");
        }
    }

    /// Removes what was confirmed and is too old or too much, and looks after the reserve.
    pub(super) fn retain(&mut self, now: Micros, verified: i64) -> io::Result<()> {
        self.reserve.look_after();
        self.meta.time = self.meta.time.max(verified);
        if self.saved_time != self.meta.time {
            self.saved_time = self.meta.time;
            self.save("the time");
        }
        while let Some(first) = self.closed.front() {
            let confirmed = |s: &&Closed| s.last_seq <= self.meta.confirmed;
            let bytes: u64 = self.closed.iter().filter(confirmed).map(|s| s.bytes).sum();
            let old = first.newest.plus_seconds(CONFIRMED_SECONDS_MAX) < now;
            if !confirmed(&first) || !(old || bytes > CONFIRMED_BYTES_MAX) {
                break;
            }
            let (ordinal, path) = (first.ordinal, segment::path(&self.dir, first.ordinal));
            if let Err(error) = self.carry(ordinal, &path, now) {
                if is_full(&error) {
                    break;
                }
                return Err(error);
            }
            fs::remove_file(&path)?;
            tracing::info!(ordinal, "a segment of confirmed events was removed");
            self.closed.pop_front();
        }
        Ok(())
    }

    /// Writes what is still needed of a segment into the active one, before it goes: ids that may come again, and
    /// messages without an end.
    fn carry(&mut self, ordinal: u64, path: &Path, now: Micros) -> io::Result<()> {
        let time = now.seconds().max(self.meta.time);
        let (mut ids, mut messages) = (Vec::new(), Vec::new());
        let bytes = fs::read(path)?;
        let scanned = segment::scan(&bytes, false, &mut NextBatch(None), |record, _| {
            match &record.content {
                Content::Known(known) => ids.extend(known.iter().copied()),
                content => ids.extend(known_ids(content)),
            }
            messages.extend(self.still_open(&record.content, ordinal));
        });
        scanned.map_err(|_| io::Error::other(format!("{} can't be read any more", path.display())))?;
        ids.retain(|(_, exp)| exp.saturating_add(LATE_SECONDS_MAX) >= time);
        ids.sort_unstable();
        ids.dedup();
        let ids = ids.chunks(RECORD_BYTES_MAX / 64).map(|chunk| Content::Known(chunk.to_vec()));
        for content in ids.chain(messages.iter().map(|(_, message)| message.clone())) {
            let mut buffer = Vec::new();
            record::encode(&mut buffer, self.next_batch, true, &content);
            self.write_buffer(&buffer)?;
        }
        // Only now: on a full disk all of it is carried again.
        for (jti, _) in messages {
            if let Some(open) = self.open.get_mut(&jti) {
                open.ordinal = self.active.ordinal;
            }
        }
        Ok(())
    }

    /// The message that a record of segment `ordinal` holds, if it has no end yet, as it is to be carried on.
    fn still_open(&self, content: &Content, ordinal: u64) -> Option<(Jti, Content)> {
        let (Content::Accepted { exp, text, envelope } | Content::Open { exp, text, envelope, .. }) = content
        else {
            return None;
        };
        let Event::Accepted { jti, .. } = Chained::parse(text.clone()).ok()?.event else { return None };
        let open = self.open.get(&jti).filter(|open| open.ordinal == ordinal)?;
        let (exp, started, text, envelope) = (*exp, open.started, text.clone(), envelope.clone());
        Some((jti, Content::Open { exp, started, text, envelope }))
    }
}

fn content(entry: &Entry, text: String) -> Content {
    match (&entry.event, &entry.message) {
        (Event::Output { .. }, _) => Content::Output { text },
        (_, Some(envelope)) => Content::Accepted { exp: entry.exp, text, envelope: envelope.clone() },
        _ => Content::Event { exp: entry.exp, text },
    }
}

/// The ids that a record makes known, and until when: its message's, and that of the statement that people agreed to.
pub(super) fn known_ids(content: &Content) -> impl Iterator<Item = (u128, i64)> {
    let used = match content {
        Content::Accepted { envelope, .. } | Content::Open { envelope, .. } => Used::by(&envelope.body),
        _ => None,
    };
    own_id(content).into_iter().chain(used.map(|used| (used.id, used.not_after)))
}

fn own_id(content: &Content) -> Option<(u128, i64)> {
    let (exp, text) = match content {
        Content::Event { exp, text }
        | Content::Accepted { exp, text, .. }
        | Content::Open { exp, text, .. }
            if *exp > 0 =>
        {
            (*exp, text)
        }
        _ => return None,
    };
    let event = Chained::parse(text.clone()).ok()?.event;
    Some((super::number(event.jti()?), exp))
}

/// Makes a segment file with its first record.
fn begin_segment(dir: &Path, ordinal: u64, batch: u32, start: SegmentStart) -> io::Result<Active> {
    let path = segment::path(dir, ordinal);
    let file = File::options().create(true).read(true).write(true).truncate(true).mode(0o600).open(path)?;
    let mut buffer = Vec::new();
    record::encode(&mut buffer, batch, true, &Content::Start(start));
    file.write_all_at(&buffer, 0)?;
    file.sync_all()?;
    segment::sync_dir(dir)?;
    Ok(Active { ordinal, file, len: buffer.len() as u64 })
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The logs that were set aside.
pub(crate) fn old_logs(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut old = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "old") && path.is_dir() {
            old.push(path);
        }
    }
    Ok(old)
}

/// Puts a log that can't be used any more beside the current one.
pub(super) fn set_aside(root: &Path, dir: &Path) -> io::Result<()> {
    let mut old = old_logs(root)?;
    old.sort();
    let surplus = (old.len() + 1).saturating_sub(crate::limits::OLD_LOGS_MAX);
    for path in old.iter().take(surplus) {
        fs::remove_dir_all(path)?;
    }
    // Time-ordered, so that the oldest sorts first.
    fs::rename(dir, root.join(format!("journal-{}.old", LogId::generate())))?;
    segment::sync_dir(root)
}
