//! How one record lies on the disk.
//!
//! `length u32 | crc32 u32 | batch u32 | flags u8 | kind u8 | payload`, little-endian. The length counts everything
//! behind the checksum, and the checksum covers exactly that. All records of one sync have the same batch number and
//! the last of them says so: that tells a torn tail (the last batch, never synced) from damage (an earlier one).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use signet_common::Envelope;
use signet_common::chain::ChainHash;
use signet_common::ids::LogId;

use crate::limits::RECORD_BYTES_MAX;

/// Bytes before the part that the checksum covers.
pub(super) const PREFIX: usize = 8;
/// Bytes from the record's start to its payload.
pub(super) const HEAD: usize = PREFIX + 6;
const LAST: u8 = 1;
/// The highest kind of record.
pub(super) const KIND_MAX: u8 = 5;

/// First record of a segment: what stands before its first event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentStart {
    /// The journal it belongs to.
    pub log_id: LogId,
    /// The number of its first event.
    pub first_seq: u64,
    /// The chain before that event.
    pub chain: ChainHash,
    /// The newest `iat` that was verified when it was begun, whole seconds since 1970.
    pub time: i64,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// See [`SegmentStart`].
    Start(SegmentStart),
    /// An event's exact text, and the `exp` until which its id stays known (0 = it makes no id known).
    Event { exp: i64, text: String },
    /// An `output` event. A kind of its own, so that a start needn't parse it.
    Output { text: String },
    /// An `accepted` event and the whole message.
    Accepted { exp: i64, text: String, envelope: Envelope },
    /// Ids from removed segments that have not expired: the UUID's number and `exp`.
    Known(Vec<(u128, i64)>),
    /// A message from a removed segment that has no end yet: its `accepted` again, which counts no more as an event.
    Open { exp: i64, started: bool, text: String, envelope: Envelope },
}

impl Content {
    /// The event's text, for records that carry one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Event { text, .. } | Self::Output { text } | Self::Accepted { text, .. } => Some(text),
            Self::Start(_) | Self::Known(_) | Self::Open { .. } => None,
        }
    }
}

/// One record as read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    /// Which sync it was written for.
    pub batch: u32,
    /// Whether it is that batch's last.
    pub last: bool,
    /// What it says.
    pub content: Content,
}

/// There is no whole, intact record here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRecord;

/// Appends one record to `out`.
pub(super) fn encode(out: &mut Vec<u8>, batch: u32, last: bool, content: &Content) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    out.extend_from_slice(&batch.to_le_bytes());
    out.push(u8::from(last) * LAST);
    match content {
        Content::Start(header) => {
            out.push(0);
            // A struct of plain fields always has a JSON form.
            out.extend_from_slice(&serde_json::to_vec(header).unwrap_or_default());
        }
        Content::Event { exp, text } => {
            out.push(1);
            out.extend_from_slice(&exp.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Content::Output { text } => {
            out.push(2);
            out.extend_from_slice(text.as_bytes());
        }
        Content::Accepted { exp, text, envelope } => {
            out.push(3);
            out.extend_from_slice(&exp.to_le_bytes());
            encode_message(out, text, envelope);
        }
        Content::Known(ids) => {
            out.push(4);
            for (id, exp) in ids {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&exp.to_le_bytes());
            }
        }
        Content::Open { exp, started, text, envelope } => {
            out.push(KIND_MAX);
            out.extend_from_slice(&exp.to_le_bytes());
            out.push(u8::from(*started));
            encode_message(out, text, envelope);
        }
    }
    let body = start + PREFIX;
    let crc = crc32fast::hash(&out[body..]).to_le_bytes();
    let len = length(out.len() - body);
    out[start..start + 4].copy_from_slice(&len);
    out[start + 4..body].copy_from_slice(&crc);
}

fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

/// How many bytes the record at the start of `bytes` takes, by its own, unchecked word.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<usize> {
    let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    (HEAD - PREFIX..=RECORD_BYTES_MAX).contains(&len).then_some(len + PREFIX)
}

/// Reads the record at the start of `bytes`; the number is its size.
pub(super) fn decode(bytes: &[u8]) -> Result<(Record, usize), NoRecord> {
    read(bytes).ok_or(NoRecord)
}

fn read(bytes: &[u8]) -> Option<(Record, usize)> {
    let size = claimed_size(bytes)?;
    let whole = bytes.get(..size)?;
    let crc = u32::from_le_bytes(whole[4..PREFIX].try_into().ok()?);
    if crc32fast::hash(&whole[PREFIX..]) != crc {
        return None;
    }
    let batch = u32::from_le_bytes(whole[PREFIX..PREFIX + 4].try_into().ok()?);
    let last = whole[PREFIX + 4] & LAST != 0;
    let content = content(whole[PREFIX + 5], &whole[HEAD..])?;
    Some((Record { batch, last, content }, size))
}

fn content(kind: u8, mut payload: &[u8]) -> Option<Content> {
    match kind {
        0 => Some(Content::Start(serde_json::from_slice(payload).ok()?)),
        1 => Some(Content::Event { exp: number(&mut payload)?, text: text(payload)? }),
        2 => Some(Content::Output { text: text(payload)? }),
        3 => {
            let exp = number(&mut payload)?;
            let (text, envelope) = message(payload)?;
            Some(Content::Accepted { exp, text, envelope })
        }
        4 => {
            let (pairs, rest) = payload.as_chunks::<24>();
            let pair = |c: &[u8; 24]| {
                let id = u128::from_le_bytes(c[..16].try_into().ok()?);
                Some((id, i64::from_le_bytes(c[16..].try_into().ok()?)))
            };
            rest.is_empty()
                .then(|| pairs.iter().map(pair).collect::<Option<Vec<_>>>())
                .flatten()
                .map(Content::Known)
        }
        KIND_MAX => {
            let exp = number(&mut payload)?;
            let started = take(&mut payload, 1)? != [0];
            let (text, envelope) = message(payload)?;
            Some(Content::Open { exp, started, text, envelope })
        }
        _ => None,
    }
}

fn encode_message(out: &mut Vec<u8>, text: &str, envelope: &Envelope) {
    for part in [text, &envelope.payload_type, &envelope.keyid, &envelope.sig] {
        out.extend_from_slice(&length(part.len()));
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(&envelope.body);
}

/// An `accepted` event's text and its message.
fn message(mut payload: &[u8]) -> Option<(String, Envelope)> {
    let text = part(&mut payload)?;
    let (payload_type, keyid, sig) = (part(&mut payload)?, part(&mut payload)?, part(&mut payload)?);
    Some((text, Envelope { payload_type, keyid, sig, body: Bytes::copy_from_slice(payload) }))
}

fn take<'a>(payload: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = payload.split_at_checked(count)?;
    *payload = tail;
    Some(head)
}

fn number(payload: &mut &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(take(payload, 8)?.try_into().ok()?))
}

fn part(payload: &mut &[u8]) -> Option<String> {
    let len = u32::from_le_bytes(take(payload, 4)?.try_into().ok()?);
    text(take(payload, len as usize)?)
}

fn text(payload: &[u8]) -> Option<String> {
    String::from_utf8(payload.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contents() -> impl Strategy<Value = Content> {
        let text = ".{0,40}";
        prop_oneof![
            (any::<i64>(), text).prop_map(|(exp, text)| Content::Event { exp, text }),
            text.prop_map(|text| Content::Output { text }),
            (
                any::<i64>(),
                any::<Option<bool>>(),
                text,
                text,
                text,
                proptest::collection::vec(any::<u8>(), 0..64)
            )
                .prop_map(|(exp, carried, text, keyid, sig, body)| {
                    let envelope = Envelope { payload_type: text.clone(), keyid, sig, body: body.into() };
                    match carried {
                        None => Content::Accepted { exp, text, envelope },
                        Some(started) => Content::Open { exp, started, text, envelope },
                    }
                }),
            proptest::collection::vec((any::<u128>(), any::<i64>()), 0..9).prop_map(Content::Known),
        ]
    }

    proptest! {
        #[test]
        fn a_record_reads_back(content in contents(), batch in any::<u32>(), last in any::<bool>()) {
            let mut out = vec![7; 3];
            encode(&mut out, batch, last, &content);
            let (record, size) = decode(&out[3..]).unwrap();
            prop_assert_eq!(size, out.len() - 3);
            prop_assert_eq!(record, Record { batch, last, content });
        }

        #[test]
        fn any_flipped_bit_is_seen(content in contents(), at in any::<proptest::sample::Index>(), bit in 0..8) {
            let mut out = Vec::new();
            encode(&mut out, 1, true, &content);
            let at = at.index(out.len());
            out[at] ^= 1u8 << bit;
            prop_assert!(decode(&out).is_err());
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&noise).is_ok_and(|(_, size)| size <= noise.len()) || decode(&noise).is_err());
        }
    }
}
