//! Finding a log again at start: what is in it, what is torn, what is damaged.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use signet_common::Envelope;
use signet_common::chain::{ChainHash, Chained};
use signet_common::ids::Jti;
use signet_common::messages::Event;
use signet_common::time::Micros;

use super::log::{Active, Closed, Log, Open, known_ids};
use super::meta::Meta;
use super::record::{Content, Record};
use super::reserve::Reserve;
use super::segment::{self, NextBatch};
use crate::limits::SEGMENT_BYTES;

/// A message whose end is not in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// Its id.
    pub jti: Jti,
    /// The last second in which it may start.
    pub exp: i64,
    /// The whole message.
    pub envelope: Envelope,
    /// Whether `started` is in the journal: then it may have run.
    pub started: bool,
}

/// What a journal remembers.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Messages without an end, in the order of their acceptance.
    pub unfinished: Vec<Unfinished>,
    /// Ids that are known, and until when. Those of `unfinished` are among them.
    pub known: HashMap<u128, i64>,
    /// The newest `iat` that was verified, as far as it was noted, whole seconds since 1970.
    pub time: i64,
    /// The boot in which it was last written to; empty when unknown.
    pub boot_id: String,
}

/// What was found in a directory.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing yet.
    Nothing,
    /// A log that can go on.
    Log(Box<Log>, Recovered),
    /// A log that can't, and why.
    Damaged(String),
}

/// Reads a whole log.
pub(super) fn open(root: &Path, dir: &Path) -> io::Result<Found> {
    let meta = match Meta::read(dir) {
        Ok(Some(meta)) => meta,
        Ok(None) if !dir.exists() || segment::list(dir)?.is_empty() => return Ok(Found::Nothing),
        Ok(None) => return Ok(Found::Damaged("log.json is missing".into())),
        Err(e) if e.kind() == io::ErrorKind::InvalidData || e.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Found::Damaged(format!("log.json: {e}")));
        }
        Err(e) => return Err(e),
    };
    let mut ordinals = segment::list(dir)?;
    let mut reading = Reading::new(&meta);
    let mut closed: VecDeque<Closed> = VecDeque::new();
    let mut written = 0;
    for (index, ordinal) in ordinals.clone().into_iter().enumerate() {
        let path = segment::path(dir, ordinal);
        let bytes = fs::read(&path)?;
        let written_last = index + 1 == ordinals.len();
        let whole = match reading.segment(&bytes, ordinal, written_last) {
            Ok(whole) => whole,
            Err(why) => return Ok(Found::Damaged(format!("{}: {why}", path.display()))),
        };
        if written_last && whole == 0 && !closed.is_empty() {
            // The agent died while it began this segment.
            fs::remove_file(&path)?;
            ordinals.pop();
            break;
        }
        written = whole as u64;
        if !written_last {
            let newest = fs::metadata(&path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let newest = Micros::from_seconds(newest.as_secs().cast_signed());
            closed.push_back(Closed { ordinal, last_seq: reading.seq, bytes: written, newest });
        }
    }
    let Some(ordinal) = ordinals.last().copied() else {
        return Ok(Found::Damaged("no segment is left".into()));
    };
    if closed.back().is_some_and(|c| c.ordinal == ordinal) {
        closed.pop_back();
    }
    if written == 0 {
        return Ok(Found::Damaged("the only segment has no beginning".into()));
    }
    let file = File::options().read(true).write(true).open(segment::path(dir, ordinal))?;
    if file.metadata()?.len() > written {
        tracing::info!(ordinal, length = written, "a torn tail was cut from the journal");
        file.set_len(written)?;
        file.sync_all()?;
    }
    let log = reading.log(root, dir, meta.clone(), closed, Active { ordinal, file, len: written });
    Ok(Found::Log(Box::new(log), reading.recovered(&meta)))
}

struct Reading {
    seq: u64,
    chain: ChainHash,
    urgent: u64,
    next: NextBatch,
    first: bool,
    time: i64,
    known: HashMap<u128, i64>,
    /// Open messages with their segment, and the order in which they came.
    open: HashMap<Jti, (u64, u64, Unfinished)>,
}

impl Reading {
    fn new(meta: &Meta) -> Self {
        Self {
            seq: 0,
            chain: ChainHash::genesis(&meta.log_id),
            urgent: 0,
            next: NextBatch(None),
            first: true,
            time: meta.time,
            known: HashMap::new(),
            open: HashMap::new(),
        }
    }

    fn segment(&mut self, bytes: &[u8], ordinal: u64, written_last: bool) -> Result<usize, String> {
        let mut next = self.next;
        let mut fault: Option<String> = None;
        let scanned = segment::scan(bytes, written_last, &mut next, |record, offset| {
            if fault.is_none() {
                fault = self.record(record, offset, ordinal).err();
            }
        });
        self.next = next;
        match (fault, scanned) {
            (Some(fault), _) => Err(fault),
            (None, Ok(whole)) => Ok(whole),
            (None, Err(damaged)) => Err(format!("damaged at byte {}", damaged.offset)),
        }
    }

    fn record(&mut self, record: &Record, offset: usize, ordinal: u64) -> Result<(), String> {
        if (offset == 0) != matches!(record.content, Content::Start(_)) {
            return Err("a segment's beginning is out of place".into());
        }
        match &record.content {
            Content::Start(start) => {
                // The first segments may have been removed; then this one says where the log goes on.
                if self.first {
                    (self.seq, self.chain) = (start.first_seq - 1, start.chain);
                } else if start.first_seq != self.seq + 1 || start.chain != self.chain {
                    return Err("it does not continue the segment before".into());
                }
                self.first = false;
                self.time = self.time.max(start.time);
            }
            Content::Known(ids) => self.known.extend(ids.iter().copied()),
            Content::Open { exp, started, text, envelope } => {
                self.known.extend(known_ids(&record.content));
                let accepted = Chained::parse(text.clone()).map_err(|e| e.to_string())?;
                if let Event::Accepted { jti, .. } = accepted.event {
                    let envelope = envelope.clone();
                    let message = Unfinished { jti: jti.clone(), exp: *exp, envelope, started: *started };
                    self.open.insert(jti, (ordinal, accepted.seq, message));
                }
            }
            content => {
                let text = content.text().unwrap_or_default();
                self.seq += 1;
                self.chain = tail_chain(text).ok_or("an event without a chain")?;
                if !matches!(content, Content::Output { .. }) {
                    self.event(content, text, ordinal)?;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, content: &Content, text: &str, ordinal: u64) -> Result<(), String> {
        let chained = Chained::parse(text.to_owned()).map_err(|e| e.to_string())?;
        if chained.seq != self.seq {
            return Err(format!("event {} where {} belongs", chained.seq, self.seq));
        }
        self.known.extend(known_ids(content));
        match (&chained.event, content) {
            (Event::Accepted { jti, .. }, Content::Accepted { exp, envelope, .. }) => {
                let message =
                    Unfinished { jti: jti.clone(), exp: *exp, envelope: envelope.clone(), started: false };
                self.open.insert(jti.clone(), (ordinal, self.seq, message));
            }
            (Event::Started { jti, .. }, _) => {
                if let Some((_, _, message)) = self.open.get_mut(jti) {
                    message.started = true;
                }
            }
            (Event::Result { jti, .. } | Event::Rejected { jti, .. }, _) => {
                self.open.remove(jti);
                self.urgent = self.seq;
            }
            _ => {}
        }
        Ok(())
    }

    fn log(&self, root: &Path, dir: &Path, meta: Meta, closed: VecDeque<Closed>, active: Active) -> Log {
        Log {
            root: root.to_owned(),
            dir: dir.to_owned(),
            meta,
            closed,
            active,
            next_batch: self.next.0.unwrap_or_default(),
            seq: self.seq,
            chain: self.chain,
            urgent: self.urgent,
            open: self
                .open
                .iter()
                .map(|(jti, (ordinal, _, message))| {
                    (jti.clone(), Open { ordinal: *ordinal, started: message.started })
                })
                .collect(),
            reserve: Reserve::take(root),
            saved_time: self.time,
            segment_bytes: SEGMENT_BYTES,
            #[cfg(test)]
            quota: None,
        }
    }

    fn recovered(self, meta: &Meta) -> Recovered {
        let mut open: Vec<(u64, Unfinished)> = self.open.into_values().map(|(_, seq, m)| (seq, m)).collect();
        open.sort_by_key(|(seq, _)| *seq);
        Recovered {
            unfinished: open.into_iter().map(|(_, message)| message).collect(),
            known: self.known,
            time: self.time,
            boot_id: meta.boot_id.clone(),
        }
    }
}

/// The chain at the end of an event's text, without parsing the rest.
pub(super) fn tail_chain(text: &str) -> Option<ChainHash> {
    let at = text.len().checked_sub(66)?;
    text.get(at..)?.strip_suffix("\"}")?.parse().ok()
}
