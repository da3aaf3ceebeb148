//! The audit trail as it is exported, and how anyone checks it with nothing but a public key.
//!
//! Every entry is a line of JSON. Once a second the new ones are sealed: a signed block names how many they are, the
//! digest over them, and the digest of the block before. So a changed entry, a removed one and a removed block show; a
//! trail that was cut off at its end shows by a head (a block's number and digest) that was kept elsewhere, as in the
//! controller's log.
//!
//! An export is JSON lines: one `keyring` (the chain of the fleet's keys), then each `block` with its entries behind it,
//! and last what is not sealed yet.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::envelope::{DsseJson, Envelope, PayloadType, SealError};
use crate::ids::KeyId;
use crate::keyring::{History, KeyringError};
use crate::keys::SigningKey;

/// The action of the entry that says which blocks were deleted because of their age: its `new` has `block` and `head`.
pub const RETAINED: &str = "audit.retain";

/// How long after a key was replaced a block may still carry its signature, in seconds: what was under way, and clocks.
const REPLACED_SECONDS_MAX: i64 = 60;

/// One line of an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// Every version of the keyring, oldest first.
    Keyring(Vec<DsseJson>),
    /// A signed [`Block`]; its entries follow.
    Block(DsseJson),
    /// An entry of the block before, byte for byte.
    Entry(Box<RawValue>),
    /// An entry that is not sealed yet.
    Unsealed(Box<RawValue>),
    /// A stored entry that is no JSON: it was changed by hand.
    Damaged(String),
}

/// What is signed once a second: the payload of type `audit-block`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// From 1, without a hole.
    pub block: u64,
    /// [`head`] of the block before; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// How many entries it seals.
    pub entries: u64,
    /// SHA-256 in hex over the SHA-256 of each entry, in order.
    pub digest: String,
    /// Sealed at, whole seconds since 1970.
    pub iat: i64,
}

/// The digest over entries, one after the other.
pub struct Entries(Context, u64);

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entries({})", self.1)
    }
}

impl Default for Entries {
    fn default() -> Self {
        Self(Context::new(&SHA256), 0)
    }
}

impl Entries {
    /// One more.
    pub fn add(&mut self, entry: &str) {
        self.0.update(digest(&SHA256, entry.as_bytes()).as_ref());
        self.1 += 1;
    }

    /// How many there are, and their digest.
    #[must_use]
    pub fn finish(self) -> (u64, String) {
        (self.1, hex::encode(self.0.finish()))
    }
}

/// A block's digest: SHA-256 in hex of the payload that was signed.
#[must_use]
pub fn head(payload: &[u8]) -> String {
    hex::encode(digest(&SHA256, payload))
}

impl Block {
    /// Signs it; gives the envelope and its [`head`].
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, key: &SigningKey) -> Result<(DsseJson, String), SealError> {
        let envelope = Envelope::sign(key, PayloadType::AuditBlock, self)?;
        let head = head(&envelope.body);
        Ok((envelope.to_dsse(), head))
    }
}

/// Why a trail is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not an export.
    #[error("line {0} is not a line of an export: {1}")]
    Line(u64, String),
    /// The first line must be the keyring.
    #[error("there is no keyring before the first block")]
    NoKeyring,
    /// The keys are not the fleet's.
    #[error("the keyring is not believed: {0}")]
    Keyring(#[from] KeyringError),
    /// Not signed by the fleet.
    #[error("block {0} is not signed by the fleet's key")]
    Signature(u64),
    /// Signed by a key that had been replaced before.
    #[error("block {0} is signed by a key that was replaced before it")]
    OldKey(u64),
    /// The end of the trail is signed by a key that was replaced: it may be a thief's.
    #[error("the last block is not signed by the newest key; right after a rotation, try again in a second")]
    NotNewest,
    /// A block is missing, or another stands in its place.
    #[error("block {found} follows block {before}: blocks are missing or were exchanged")]
    Order {
        /// The last good one.
        before: u64,
        /// What came.
        found: u64,
    },
    /// The chain is broken.
    #[error("block {0} does not continue the block before it")]
    Chain(u64),
    /// An entry was changed, added or removed.
    #[error("the entries of block {0} are not what was sealed: {1} now, {2} then")]
    Entries(u64, u64, u64),
    /// A stored entry is no JSON.
    #[error("block {0} has an entry that is damaged")]
    Damaged(u64),
    /// The beginning is missing, no entry says that it was deleted because of its age, and no kept head is where it
    /// begins.
    #[error("the trail begins with block {0}, and nothing in it says why")]
    NoBeginning(u64),
    /// The end is missing.
    #[error("block {wanted} is missing: the trail was cut off behind block {last}")]
    CutOff {
        /// The kept head's block.
        wanted: u64,
        /// The last one there.
        last: u64,
    },
    /// A head that was kept names another digest.
    #[error("block {0} is another one than the head that was kept")]
    Head(u64),
}

/// What a whole trail holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The first block; above 1 when older ones were deleted because of their age.
    pub first: u64,
    /// The last block; 0 without any.
    pub last: u64,
    /// Its digest.
    pub head: String,
    /// Sealed entries.
    pub entries: u64,
    /// Entries that no block seals yet.
    pub unsealed: u64,
    /// Kept heads that were found again.
    pub heads: u64,
}

/// Reads an export line by line.
#[derive(Debug)]
pub struct Check {
    anchor: KeyId,
    heads: BTreeMap<u64, String>,
    keys: Option<History>,
    /// The newest key's place in the history that a block was signed with.
    key: usize,
    open: Option<(Block, Entries)>,
    begin: Option<Block>,
    retained: Vec<(u64, String)>,
    line: u64,
    sum: Summary,
}

#[derive(Deserialize)]
struct Retained {
    action: String,
    new: Option<Deleted>,
}

#[derive(Deserialize)]
struct Deleted {
    block: u64,
    head: String,
}

impl Check {
    /// Believes the fleet's keys because one of them has this fingerprint. `heads` are blocks' digests that were kept.
    #[must_use]
    pub fn new(anchor: KeyId, heads: BTreeMap<u64, String>) -> Self {
        let sum = Summary { first: 0, last: 0, head: String::new(), entries: 0, unsealed: 0, heads: 0 };
        let (keys, open, begin) = (None, None, None);
        Self { anchor, heads, keys, key: 0, open, begin, retained: Vec::new(), line: 0, sum }
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// [`Broken`], at the first thing that is wrong.
    pub fn line(&mut self, text: &str) -> Result<(), Broken> {
        self.line += 1;
        let bad = |why: &str| Broken::Line(self.line, why.to_owned());
        match serde_json::from_str(text).map_err(|e| bad(&e.to_string()))? {
            Line::Keyring(chain) if self.keys.is_none() => {
                self.keys = Some(History::believed(&chain, &self.anchor)?);
                Ok(())
            }
            Line::Keyring(_) => Err(bad("a second keyring")),
            Line::Block(_) | Line::Entry(_) | Line::Damaged(_) if self.sum.unsealed > 0 => {
                Err(bad("something sealed behind what is not"))
            }
            Line::Block(signed) => self.block(&signed),
            Line::Entry(entry) => {
                let (_, entries) = self.open.as_mut().ok_or_else(|| bad("an entry without a block"))?;
                entries.add(entry.get());
                self.look_at(&entry);
                Ok(())
            }
            Line::Damaged(_) => Err(Broken::Damaged(self.sum.last)),
            Line::Unsealed(entry) => {
                self.close()?;
                self.look_at(&entry);
                self.sum.unsealed += 1;
                Ok(())
            }
        }
    }

    /// Remembers what an entry says about a beginning that was deleted.
    fn look_at(&mut self, entry: &RawValue) {
        if let Ok(Retained { action, new: Some(new) }) = serde_json::from_str(entry.get())
            && action == RETAINED
        {
            self.retained.push((new.block, new.head));
        }
    }

    fn block(&mut self, signed: &DsseJson) -> Result<(), Broken> {
        self.close()?;
        let keys = self.keys.as_ref().ok_or(Broken::NoKeyring)?;
        let next = self.sum.last + 1;
        let envelope = signed.envelope().map_err(|_| Broken::Signature(next))?;
        let mut place = None;
        let verified = envelope.verify(&[PayloadType::AuditBlock], |id| {
            let (found, key) = keys.find(id)?;
            place = Some(found);
            Some(key.clone())
        });
        let block = verified.and_then(|authentic| authentic.parse::<Block>());
        let block = block.map_err(|_| Broken::Signature(next))?.into_inner();
        let place = place.unwrap_or(0);
        let late = keys.replaced_at(place).is_some_and(|at| block.iat > at + REPLACED_SECONDS_MAX);
        if place < self.key || late {
            return Err(Broken::OldKey(block.block));
        }
        self.key = place;
        if self.begin.is_none() {
            self.sum.first = block.block;
            self.begin = Some(block.clone());
        } else if block.block != next {
            return Err(Broken::Order { before: self.sum.last, found: block.block });
        } else if block.previous.as_ref() != Some(&self.sum.head) {
            return Err(Broken::Chain(block.block));
        }
        self.sum.last = block.block;
        self.sum.head = head(&envelope.body);
        if let Some(kept) = self.heads.get(&block.block) {
            if *kept != self.sum.head {
                return Err(Broken::Head(block.block));
            }
            self.sum.heads += 1;
        }
        self.open = Some((block, Entries::default()));
        Ok(())
    }

    /// Compares the entries of the block that is over.
    fn close(&mut self) -> Result<(), Broken> {
        let Some((block, entries)) = self.open.take() else { return Ok(()) };
        let (count, digest) = entries.finish();
        if (count, &digest) != (block.entries, &block.digest) {
            return Err(Broken::Entries(block.block, count, block.entries));
        }
        self.sum.entries += count;
        Ok(())
    }

    /// Says whether the trail is whole.
    ///
    /// # Errors
    /// [`Broken`], also for what is missing at either end.
    pub fn finish(mut self) -> Result<Summary, Broken> {
        self.close()?;
        let keys = self.keys.as_ref().ok_or(Broken::NoKeyring)?;
        // A rotation is an entry itself, so the newest key seals a block within a second or so.
        if self.begin.is_some() && keys.replaced_at(self.key).is_some() {
            return Err(Broken::NotNewest);
        }
        if let Some(begin) = &self.begin {
            let before = begin.previous.as_ref().map(|head| (begin.block.saturating_sub(1), head));
            let told = before
                .is_some_and(|(block, head)| self.retained.iter().any(|(b, h)| *b == block && h == head));
            let kept = self
                .heads
                .get(&begin.block.saturating_sub(1))
                .is_some_and(|head| begin.previous.as_ref() == Some(head));
            let first = begin.block == 1 && begin.previous.is_none();
            if !first && !told && !kept {
                return Err(Broken::NoBeginning(begin.block));
            }
        }
        match self.heads.last_key_value() {
            Some((wanted, _)) if *wanted > self.sum.last => {
                Err(Broken::CutOff { wanted: *wanted, last: self.sum.last })
            }
            _ => Ok(self.sum),
        }
    }
}

/// The heads in a text: lines of a controller's log (`audit head block=7 head=0a…`), or what `signet audit verify`
/// printed. Other lines are passed over.
#[must_use]
pub fn heads(text: &str) -> BTreeMap<u64, String> {
    let value = |line: &str, name: &str| {
        let (_, rest) = line.split_once(name)?;
        let rest = rest.trim_start_matches(['"', ':', '=', ' ']);
        let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        (end > 0).then(|| rest[..end].to_owned())
    };
    let of = |line: &str| {
        let (_, line) = line.split_once("audit head")?;
        let block = value(line, "block")?.parse().ok()?;
        value(line, "head").filter(|head| head.len() == 64).map(|head| (block, head))
    };
    text.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::keyring::Keyring;

    static KEYS: LazyLock<[SigningKey; 3]> =
        LazyLock::new(|| [(); 3].map(|()| SigningKey::generate().unwrap()));

    /// Blocks of two entries each; the key is rotated before the third.
    fn trail(blocks: u64) -> Vec<String> {
        let [one, two, _] = &*KEYS;
        let (first, signed) = Keyring::first(one, 1).unwrap();
        let (_, second) = first.next(one, two, 2, false).unwrap();
        let text = |line: &Line| serde_json::to_string(line).unwrap();
        let mut lines = vec![text(&Line::Keyring(vec![signed, second]))];
        let mut previous = None;
        for number in 1..=blocks {
            let stored =
                [0, 1].map(|n| json!({"action": "x", "object": format!("{number}.{n}")}).to_string());
            let mut digest = Entries::default();
            stored.iter().for_each(|entry| digest.add(entry));
            let (entries, digest) = digest.finish();
            let block = Block { block: number, previous, entries, digest, iat: 1 };
            let (envelope, head) = block.sign(if number < 3 { one } else { two }).unwrap();
            lines.push(text(&Line::Block(envelope)));
            lines.extend(stored.map(|entry| text(&Line::Entry(RawValue::from_string(entry).unwrap()))));
            previous = Some(head);
        }
        lines.push(text(&Line::Unsealed(RawValue::from_string("{}".into()).unwrap())));
        lines
    }

    fn checked(lines: &[String], heads: BTreeMap<u64, String>) -> Result<Summary, Broken> {
        let mut check = Check::new(KEYS[1].public().id().clone(), heads);
        lines.iter().try_for_each(|line| check.line(line))?;
        check.finish()
    }

    #[test]
    fn a_whole_trail_is_believed_and_its_head_is_found_again() {
        let all = checked(&trail(4), BTreeMap::new()).unwrap();
        assert_eq!((all.first, all.last, all.entries, all.unsealed), (1, 4, 8, 1));
        let log = format!(
            "2026-01-01 INFO audit head block=4 head={}\nand {{\"message\":\"audit head\",\"block\":9,\"head\":\"xyz\"}}",
            all.head
        );
        assert_eq!(heads(&log), BTreeMap::from([(4, all.head.clone())]));
        assert_eq!(checked(&trail(4), heads(&log)).unwrap().heads, 1);
        let mut other = Check::new(KEYS[2].public().id().clone(), BTreeMap::new());
        assert!(matches!(other.line(&trail(1)[0]), Err(Broken::Keyring(_))), "a foreign fleet's");
    }

    #[test]
    fn what_is_missing_or_changed_shows() {
        let whole = trail(4);
        let head = checked(&whole, BTreeMap::new()).unwrap().head;
        let kept = BTreeMap::from([(4, head)]);
        let without = |range: std::ops::Range<usize>| {
            let mut lines = whole.clone();
            lines.drain(range);
            lines
        };
        // An entry; a block with its entries; one without; the end.
        assert_eq!(checked(&without(2..3), kept.clone()), Err(Broken::Entries(1, 1, 2)));
        assert_eq!(checked(&without(4..7), kept.clone()), Err(Broken::Order { before: 1, found: 3 }));
        assert!(matches!(checked(&without(4..5), kept.clone()), Err(Broken::Entries(1, 4, 2))));
        assert_eq!(checked(&without(10..13), kept.clone()), Err(Broken::CutOff { wanted: 4, last: 3 }));
        assert!(checked(&without(10..13), BTreeMap::new()).is_ok(), "only a kept head shows a cut-off end");
        assert_eq!(checked(&without(1..4), kept.clone()), Err(Broken::NoBeginning(2)));
        let edited: Vec<_> = whole.iter().map(|line| line.replace("2.1", "2.7")).collect();
        assert_eq!(checked(&edited, kept), Err(Broken::Entries(2, 2, 2)));
    }

    #[test]
    fn a_key_that_was_replaced_seals_nothing_more() {
        // A whole trail by the first key alone, as whoever stole it could make it.
        assert_eq!(checked(&trail(2), BTreeMap::new()), Err(Broken::NotNewest));
        let mut lines = trail(4);
        let [one, ..] = &*KEYS;
        let signed: Line = serde_json::from_str(&lines[4]).unwrap();
        let Line::Block(signed) = signed else { panic!("no block") };
        let block: Block = serde_json::from_slice(&signed.envelope().unwrap().body).unwrap();
        let (late, _) = Block { iat: 2 + REPLACED_SECONDS_MAX + 1, ..block }.sign(one).unwrap();
        lines[4] = serde_json::to_string(&Line::Block(late)).unwrap();
        assert_eq!(checked(&lines, BTreeMap::new()), Err(Broken::OldKey(2)));
    }

    #[test]
    fn a_beginning_that_was_deleted_because_of_its_age_is_told_by_an_entry() {
        let mut lines = trail(2);
        let head_of = |line: &str| match serde_json::from_str(line).unwrap() {
            Line::Block(signed) => head(&signed.envelope().unwrap().body),
            _ => panic!("no block"),
        };
        let old = head_of(&lines[1]);
        let told = json!({"action": RETAINED, "new": {"block": 1, "head": old}}).to_string();
        let mut digest = Entries::default();
        digest.add(&told);
        let (entries, digest) = digest.finish();
        let previous = head_of(&lines[4]);
        let block = Block { block: 3, previous: Some(previous), entries, digest, iat: 1 };
        let (envelope, _) = block.sign(&KEYS[1]).unwrap();
        lines.pop();
        lines.push(serde_json::to_string(&Line::Block(envelope)).unwrap());
        lines.push(serde_json::to_string(&Line::Entry(RawValue::from_string(told).unwrap())).unwrap());
        lines.drain(1..4);
        assert_eq!(checked(&lines, BTreeMap::new()).unwrap().first, 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn no_changed_byte_goes_unseen(line in 0_usize..13, at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            static WHOLE: LazyLock<(Vec<String>, Summary)> = LazyLock::new(|| {
                let lines = trail(4);
                let sum = checked(&lines, BTreeMap::new()).unwrap();
                (lines, sum)
            });
            let (whole, sum) = &*WHOLE;
            let mut lines = whole.clone();
            let mut bytes = lines[line].clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let text = String::from_utf8(bytes).unwrap();
            // Another way to write the same JSON, as a blank around a name, is no change of what it says.
            lines[line] = text;
            let kept = BTreeMap::from([(sum.last, sum.head.clone())]);
            if let Ok(found) = checked(&lines, kept) {
                prop_assert_eq!(&found.head, &sum.head);
                prop_assert_eq!(found.entries, sum.entries);
            }
        }
    }
}
