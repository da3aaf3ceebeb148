//! The journal's hash chain: how events are written, numbered and chained, and how a reader checks that.
//!
//! An event is one JSON object. Its last member is `chain`; the hashed bytes are the previous chain (32 bytes) followed
//! by the event's text without that member: `chain(n) = SHA-256(chain(n-1) || text up to ,"chain":… || })`.
//! A log's chain begins with SHA-256 of `signet-log:` and the log's id. A `gap` is the one event whose chain is not
//! computed: it carries the chain at its `to`, because the events between are gone.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::ids::{BadId, LogId};
use crate::messages::Event;

/// One link of a journal's chain, as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// Where a log's chain begins, at `seq` 0.
    #[must_use]
    pub fn genesis(log: &LogId) -> Self {
        Self::digest(&[b"signet-log:", log.as_str().as_bytes()])
    }

    fn digest(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }
}

impl FromStr for ChainHash {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = BadId { what: "chain" };
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad);
        }
        let mut out = [0; 32];
        hex::decode_to_slice(text, &mut out).map_err(|_| bad)?;
        Ok(Self(out))
    }
}

impl TryFrom<String> for ChainHash {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<ChainHash> for String {
    fn from(hash: ChainHash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Length of `,"chain":"<64 hex>"}`.
const TAIL: usize = 10 + 64 + 2;

/// An event as it stands in the journal and in reports: its exact text and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Chained {
    /// The event's number in its log, from 1, without a hole.
    pub seq: u64,
    /// The chain after this event.
    pub chain: ChainHash,
    /// What happened.
    pub event: Event,
    /// The exact JSON text, `chain` included.
    pub text: String,
}

/// Why an event's text can't stand in a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed event: {0}")]
pub struct BadEvent(pub String);

#[derive(Serialize, Deserialize)]
struct Numbered<E> {
    seq: u64,
    #[serde(flatten)]
    event: E,
}

#[derive(Deserialize)]
struct Tail {
    chain: ChainHash,
}

impl Chained {
    /// Writes the next event after `previous`.
    ///
    /// # Errors
    /// When the event can't be written as JSON.
    pub fn next(previous: ChainHash, seq: u64, event: Event) -> Result<Self, BadEvent> {
        let mut text =
            serde_json::to_string(&Numbered { seq, event: &event }).map_err(|e| BadEvent(e.to_string()))?;
        let chain = match &event {
            Event::Gap { chain_at_to, .. } => *chain_at_to,
            _ => ChainHash::digest(&[&previous.0, text.as_bytes()]),
        };
        text.pop();
        text.push_str(",\"chain\":\"");
        text.push_str(&chain.to_string());
        text.push_str("\"}");
        Ok(Self { seq, chain, event, text })
    }

    /// Reads an event's text, without knowing what came before.
    ///
    /// # Errors
    /// When it is not an event, or `chain` isn't its last member.
    pub fn parse(text: String) -> Result<Self, BadEvent> {
        let at = text.len().checked_sub(TAIL).ok_or_else(|| BadEvent("too short".into()))?;
        if !text.is_char_boundary(at) || !text[at..].starts_with(",\"chain\":\"") {
            return Err(BadEvent("chain is not the last member".into()));
        }
        let bad = |e: serde_json::Error| BadEvent(e.to_string());
        let Tail { chain } = serde_json::from_str(&text).map_err(bad)?;
        let Numbered { seq, mut event } = serde_json::from_str::<Numbered<Event>>(&text).map_err(bad)?;
        if let Event::Gap { to, chain_at_to, .. } = &mut event {
            if *to != seq {
                return Err(BadEvent("a gap's seq is its last event".into()));
            }
            *chain_at_to = chain;
        }
        Ok(Self { seq, chain, event, text })
    }

    /// Whether this event follows directly on `previous` at `previous_seq`.
    #[must_use]
    pub fn continues(&self, previous: ChainHash, previous_seq: u64) -> bool {
        if let Event::Gap { from, .. } = &self.event {
            return *from == previous_seq + 1 && self.seq >= *from;
        }
        let hashed = &self.text.as_bytes()[..self.text.len() - TAIL];
        self.seq == previous_seq + 1 && ChainHash::digest(&[&previous.0, hashed, b"}"]) == self.chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Jti;
    use proptest::prelude::*;

    fn accepted() -> Event {
        Event::Accepted { jti: Jti::generate(), at: 1 }
    }

    #[test]
    fn a_chain_reads_back_and_breaks_on_any_change() {
        let start = ChainHash::genesis(&LogId::generate());
        let one = Chained::next(start, 1, accepted()).unwrap();
        let two = Chained::next(one.chain, 2, accepted()).unwrap();
        let read = Chained::parse(two.text.clone()).unwrap();
        assert_eq!(read, two);
        assert!(read.continues(one.chain, 1));
        assert!(!read.continues(start, 1));
        assert!(!read.continues(one.chain, 0));
        let altered = Chained::parse(two.text.replace("\"at\":1", "\"at\":2")).unwrap();
        assert!(!altered.continues(one.chain, 1));
    }

    #[test]
    fn a_gap_stands_for_what_is_gone() {
        let start = ChainHash::genesis(&LogId::generate());
        let nine = Chained::next(start, 9, accepted()).unwrap();
        let gap = Chained::next(start, 9, Event::Gap { from: 4, to: 9, chain_at_to: nine.chain }).unwrap();
        let read = Chained::parse(gap.text).unwrap();
        assert_eq!(read.chain, nine.chain);
        assert!(read.continues(start, 3));
        assert!(!read.continues(start, 4));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            Chained::parse(text).ok();
        }
    }
}
