//! Reading events back from the files, for reports.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use signet_common::chain::{ChainHash, Chained};
use signet_common::ids::LogId;
use signet_common::messages::Event;

use super::Head;
use super::open::tail_chain;
use super::record::{self, Content, SegmentStart};
use super::segment;
use crate::limits::RECORD_BYTES_MAX;

/// An event's place and exact text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub seq: u64,
    /// The chain after it.
    pub chain: ChainHash,
    /// The exact JSON text.
    pub text: String,
}

/// Reads synced events in order, from anywhere. Has files of its own, so that the writer never waits.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    log_id: LogId,
    at: Option<Position>,
}

#[derive(Debug)]
struct Position {
    ordinal: u64,
    file: File,
    offset: u64,
    /// The event that the next record with an event is.
    next_seq: u64,
    /// The chain before it.
    chain: ChainHash,
}

impl Reader {
    pub(super) fn new(dir: PathBuf, log_id: LogId) -> Self {
        Self { dir, log_id, at: None }
    }

    /// The log that it reads.
    #[must_use]
    pub fn log_id(&self) -> &LogId {
        &self.log_id
    }

    /// The events after `seq` up to the head: at most `count` of them, and `bytes` of text unless the first alone has
    /// more. Where events are gone, the first is one `gap` that stands for them.
    ///
    /// # Errors
    /// When the files can't be read, or don't hold what they held when they were written.
    pub fn after(&mut self, seq: u64, head: &Head, count: usize, bytes: usize) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        if seq >= head.seq || head.log_id != self.log_id {
            return Ok(lines);
        }
        if let Some(gap) = self.seek(seq)? {
            lines.push(gap);
        }
        let mut size: usize = lines.iter().map(|l| l.text.len()).sum();
        while lines.len() < count && self.at.as_ref().is_some_and(|at| at.next_seq <= head.seq) {
            let before = self.at.as_ref().map(|at| (at.ordinal, at.offset, at.next_seq, at.chain));
            let Some(line) = self.next()? else { break };
            size += line.text.len();
            if size > bytes && !lines.is_empty() {
                // One too many: it is read again for the next report.
                if let (Some(at), Some((ordinal, offset, next_seq, chain))) = (self.at.as_mut(), before)
                    && at.ordinal == ordinal
                {
                    (at.offset, at.next_seq, at.chain) = (offset, next_seq, chain);
                } else {
                    self.at = None;
                }
                break;
            }
            lines.push(line);
        }
        Ok(lines)
    }

    /// The chain at `seq`; `None` when that event is gone.
    ///
    /// # Errors
    /// As [`Reader::after`].
    pub fn chain_at(&mut self, seq: u64, head: &Head) -> io::Result<Option<ChainHash>> {
        if seq > head.seq || head.log_id != self.log_id {
            return Ok(None);
        }
        if seq == head.seq {
            return Ok(Some(head.chain));
        }
        let gap = self.seek(seq)?;
        Ok(self.at.as_ref().filter(|_| gap.is_none()).map(|at| at.chain))
    }

    /// Goes behind event `seq`. Returns a gap when the events that follow it are gone.
    fn seek(&mut self, seq: u64) -> io::Result<Option<Line>> {
        if self.at.as_ref().is_none_or(|at| at.next_seq != seq + 1) {
            self.at = None;
            let ordinals = segment::list(&self.dir)?;
            // Newest first: mostly the end is asked for.
            for ordinal in ordinals.iter().rev() {
                let at = self.begin(*ordinal)?;
                let found = at.next_seq <= seq + 1;
                self.at = Some(at);
                if found {
                    break;
                }
            }
        }
        let Some(at) = &self.at else {
            return Err(io::Error::other("the journal has no segment"));
        };
        if at.next_seq > seq + 1 {
            let (to, chain) = (at.next_seq - 1, at.chain);
            let gap = Event::Gap { from: seq + 1, to, chain_at_to: chain };
            let chained = Chained::next(chain, to, gap).map_err(io::Error::other)?;
            return Ok(Some(Line { seq: to, chain, text: chained.text }));
        }
        while self.at.as_ref().is_some_and(|at| at.next_seq <= seq) {
            if self.next()?.is_none() {
                return Err(io::Error::other(format!("event {seq} is not in the journal")));
            }
        }
        Ok(None)
    }

    fn begin(&self, ordinal: u64) -> io::Result<Position> {
        let file = File::open(segment::path(&self.dir, ordinal))?;
        match read_at(&file, 0)? {
            Some((Content::Start(SegmentStart { log_id, first_seq, chain, .. }), size))
                if log_id == self.log_id =>
            {
                Ok(Position { ordinal, file, offset: size, next_seq: first_seq, chain })
            }
            _ => Err(io::Error::other(format!("segment {ordinal} has no beginning of this log"))),
        }
    }

    /// The next event, across segments.
    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some(at) = self.at.as_mut() else { return Ok(None) };
            let Some((content, size)) = read_at(&at.file, at.offset)? else {
                let following = segment::list(&self.dir)?.into_iter().find(|o| *o > at.ordinal);
                let Some(ordinal) = following else { return Ok(None) };
                self.at = Some(self.begin(ordinal)?);
                continue;
            };
            at.offset += size;
            if let Content::Event { text, .. } | Content::Output { text } | Content::Accepted { text, .. } =
                content
            {
                let chain = tail_chain(&text).ok_or_else(|| io::Error::other("an event without a chain"))?;
                let seq = at.next_seq;
                (at.next_seq, at.chain) = (seq + 1, chain);
                return Ok(Some(Line { seq, chain, text }));
            }
        }
    }
}

/// The record at `offset` and its size; `None` at the end of what is written.
fn read_at(file: &File, offset: u64) -> io::Result<Option<(Content, u64)>> {
    // Most records fit into the first read; larger ones need one more.
    let mut buffer = vec![0; 1_024];
    let mut got = fill(file, &mut buffer, offset)?;
    let Some(size) = record::claimed_size(&buffer[..got]) else { return Ok(None) };
    if size > got {
        if got < buffer.len() || size > RECORD_BYTES_MAX + record::PREFIX {
            return Ok(None);
        }
        buffer.resize(size, 0);
        got += fill(file, &mut buffer[got..], offset + got as u64)?;
    }
    Ok(record::decode(&buffer[..got]).ok().map(|(found, size)| (found.content, size as u64)))
}

fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
