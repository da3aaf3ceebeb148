//! What is kept of a command's output, and when it is told. Pure: the clock is a parameter.
//!
//! The first half of the limit goes out as it comes; of the rest the last half is kept in a ring until the end. As long
//! as the command wrote no more than the limit, the two touch and nothing is lost.

use std::collections::VecDeque;
use std::mem;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::BytesMut;
use signet_common::limits::{OUTPUT_CHUNK_BYTES_MAX, RESULT_OUTPUT_BYTES_MAX};
use signet_common::messages::{Stream, StreamSummary};
use tokio::time::Instant;

use super::RunEvent;
use crate::limits::OUTPUT_EVERY;

/// Both streams of one command.
pub(crate) struct Capture {
    started: Instant,
    told: bool,
    stdout: Kept,
    stderr: Kept,
}

/// What the result says about output.
pub(crate) struct Captured {
    /// Kept output, unless events carried it.
    pub(crate) stdout: Vec<u8>,
    /// Likewise.
    pub(crate) stderr: Vec<u8>,
    /// Sizes and digest.
    pub(crate) stdout_summary: StreamSummary,
    /// Sizes and digest.
    pub(crate) stderr_summary: StreamSummary,
}

impl Capture {
    /// Nothing so far. `limit` is for each stream, in bytes.
    pub(crate) fn new(limit: u64, started: Instant) -> Self {
        let kept = |stream| Kept::new(stream, limit, started);
        Self { started, told: false, stdout: kept(Stream::Stdout), stderr: kept(Stream::Stderr) }
    }

    /// Takes what was read.
    pub(crate) fn push(&mut self, stream: Stream, data: &[u8], now: Instant) {
        match stream {
            Stream::Stdout => self.stdout.push(data, now),
            Stream::Stderr => self.stderr.push(data, now),
        }
    }

    /// When [`Self::take`] has something to tell; `None` until more is pushed.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = [self.stdout.due(), self.stderr.due()].into_iter().flatten().min()?;
        Some(if self.told || self.is_long() { due } else { due.max(self.started + OUTPUT_EVERY) })
    }

    /// The next event that is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<RunEvent> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.told = true;
        let first = match (self.stdout.due(), self.stderr.due()) {
            (Some(stdout), Some(stderr)) if stderr < stdout => &mut self.stderr,
            (Some(_), _) => &mut self.stdout,
            (None, _) => &mut self.stderr,
        };
        first.take(now)
    }

    /// The command is over: what is left to tell, one event at a time. Nothing when all of it goes into the result.
    pub(crate) fn take_rest(&mut self, over: Instant) -> Option<RunEvent> {
        if !self.told && !self.is_long() && over <= self.started + OUTPUT_EVERY {
            return None;
        }
        self.told = true;
        self.stdout.take_rest().or_else(|| self.stderr.take_rest())
    }

    /// The result's part, after [`Self::take_rest`] has given everything.
    pub(crate) fn finish(self) -> Captured {
        let (stdout, stdout_summary) = self.stdout.finish();
        let (stderr, stderr_summary) = self.stderr.finish();
        Captured { stdout, stderr, stdout_summary, stderr_summary }
    }

    fn is_long(&self) -> bool {
        self.stdout.bytes + self.stderr.bytes > RESULT_OUTPUT_BYTES_MAX as u64
    }
}

/// One stream.
struct Kept {
    stream: Stream,
    /// Bytes of the first half and of the last.
    head_max: u64,
    tail_max: u64,
    /// Written so far.
    bytes: u64,
    digest: Context,
    /// The part of the first half that was not told yet, and since when it waits.
    head: BytesMut,
    head_since: Instant,
    tail: VecDeque<u8>,
    /// The count that was told last, and when.
    counted: u64,
    counted_at: Instant,
}

impl Kept {
    fn new(stream: Stream, limit: u64, started: Instant) -> Self {
        let head_max = limit / 2;
        Self {
            stream,
            head_max,
            tail_max: limit - head_max,
            bytes: 0,
            digest: Context::new(&SHA256),
            head: BytesMut::new(),
            head_since: started,
            tail: VecDeque::new(),
            counted: 0,
            counted_at: started,
        }
    }

    fn push(&mut self, data: &[u8], now: Instant) {
        self.digest.update(data);
        let room = usize::try_from(self.head_max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let (head, tail) = data.split_at(room.min(data.len()));
        self.bytes += data.len() as u64;
        if !head.is_empty() {
            if self.head.is_empty() {
                self.head_since = now;
            }
            self.head.extend_from_slice(head);
        }
        // In pieces, so that the ring never grows beyond its size and one piece.
        for piece in tail.chunks(OUTPUT_CHUNK_BYTES_MAX) {
            self.tail.extend(piece);
            let tail_max = usize::try_from(self.tail_max).unwrap_or(usize::MAX);
            self.tail.drain(..self.tail.len().saturating_sub(tail_max));
        }
    }

    fn due(&self) -> Option<Instant> {
        if self.head.len() >= OUTPUT_CHUNK_BYTES_MAX {
            Some(self.head_since)
        } else if !self.head.is_empty() {
            Some(self.head_since + OUTPUT_EVERY)
        } else if self.bytes > self.head_max && self.bytes > self.counted {
            Some(self.counted_at + OUTPUT_EVERY)
        } else {
            None
        }
    }

    fn take(&mut self, now: Instant) -> Option<RunEvent> {
        if let Some(event) = self.take_head() {
            self.counted = self.bytes.min(self.head_max);
            self.counted_at = now;
            self.head_since = now;
            return Some(event);
        }
        self.counted = self.bytes;
        self.counted_at = now;
        Some(RunEvent::Count { stream: self.stream, bytes: self.bytes })
    }

    fn take_head(&mut self) -> Option<RunEvent> {
        if self.head.is_empty() {
            return None;
        }
        let offset = self.bytes.min(self.head_max) - self.head.len() as u64;
        let data = self.head.split_to(self.head.len().min(OUTPUT_CHUNK_BYTES_MAX)).to_vec();
        Some(RunEvent::Output { stream: self.stream, offset, data })
    }

    fn take_rest(&mut self) -> Option<RunEvent> {
        if let Some(event) = self.take_head() {
            return Some(event);
        }
        if self.tail.is_empty() {
            return None;
        }
        let offset = self.bytes - self.tail.len() as u64;
        let data = self.tail.drain(..self.tail.len().min(OUTPUT_CHUNK_BYTES_MAX)).collect();
        Some(RunEvent::Output { stream: self.stream, offset, data })
    }

    fn finish(mut self) -> (Vec<u8>, StreamSummary) {
        let omitted_bytes = self.bytes.saturating_sub(self.head_max + self.tail_max);
        let mut kept = mem::take(&mut self.head).to_vec();
        kept.extend(self.tail);
        let summary = StreamSummary {
            bytes: self.bytes,
            omitted_from: (omitted_bytes > 0).then_some(self.head_max),
            omitted_bytes,
            sha256: hex::encode(self.digest.finish()),
        };
        (kept, summary)
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
