//! How far each agent's journal was taken in, and what a hello or a report means for that: pure decisions first.

use signet_common::chain::{ChainHash, Chained};
use signet_common::ids::LogId;

/// Why nothing is sent to a host although it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing holds it.
    None,
    /// Its log is new to this database (a restored one): dispatch waits until its events are taken in.
    CatchingUp,
    /// Rolled back or cloned: an admin must accept it.
    SetAside,
    /// An admin accepted it; it has yet to begin a new log.
    Accepted,
}

impl Hold {
    /// As in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::CatchingUp => "catching_up",
            Self::SetAside => "set_aside",
            Self::Accepted => "accepted",
        }
    }

    /// From the database.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "none" => Self::None,
            "catching_up" => Self::CatchingUp,
            "accepted" => Self::Accepted,
            _ => Self::SetAside,
        }
    }
}

/// What the controller knows of an agent's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Which log.
    pub log_id: LogId,
    /// The last event taken in; 0 = none.
    pub seq: u64,
    /// The chain at `seq`.
    pub chain: ChainHash,
    /// Whether something holds dispatch.
    pub hold: Hold,
}

/// What a hello says of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloLog {
    /// Which log.
    pub log_id: LogId,
    /// Its last synced event.
    pub head: u64,
    /// The chain at `head`.
    pub chain: ChainHash,
    /// Whether no answer to a hello of it was heard yet.
    pub new_log: bool,
}

/// What to do about a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The log that is known goes on.
    Continue,
    /// The first log of this agent, or a new one in place of what was: everything open there ends.
    Begin,
    /// A log with a past that this database doesn't know: follow it from its start, and hold dispatch meanwhile.
    CatchUp,
    /// Rolled back or cloned.
    SetAside(&'static str),
    /// It stays set aside.
    StaysAside,
    /// An admin accepted it: it must begin a new log.
    NewLog,
}

/// Judges a hello. `past` tells whether its log is one that this agent had before the current one.
#[must_use]
pub fn judge_hello(known: Option<&Cursor>, hello: &HelloLog, past: bool) -> Verdict {
    let Some(known) = known else {
        return if hello.new_log || hello.head == 0 { Verdict::Begin } else { Verdict::CatchUp };
    };
    let same = known.log_id == hello.log_id;
    match known.hold {
        Hold::SetAside => return Verdict::StaysAside,
        Hold::Accepted if hello.new_log && !same => return Verdict::Begin,
        Hold::Accepted => return Verdict::NewLog,
        Hold::None | Hold::CatchingUp => {}
    }
    if same {
        // The answer to its first hello was lost: what was meant for it since is refused there, by the answer to this one.
        return if hello.new_log && known.seq == 0 {
            Verdict::Begin
        } else if hello.head < known.seq {
            Verdict::SetAside("rolled back: its journal ends before what it had reported")
        } else if hello.head == known.seq && hello.chain != known.chain {
            Verdict::SetAside("rolled back or cloned: its journal differs from what it had reported")
        } else {
            Verdict::Continue
        };
    }
    if past {
        Verdict::SetAside("rolled back: it came with a log that it had given up")
    } else if hello.new_log {
        Verdict::Begin
    } else {
        Verdict::CatchUp
    }
}

/// What a report's events are worth against the cursor.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// These are new, in order, and continue the chain. May be empty: all were known.
    New(Vec<Chained>),
    /// It starts above cursor + 1: nothing can be taken from it.
    Ahead,
    /// It does not continue the chain: the host was rolled back or cloned.
    Broken,
}

/// Picks what is new from a report's events.
#[must_use]
pub fn take(cursor: &Cursor, events: Vec<Chained>) -> Taken {
    let (mut seq, mut chain) = (cursor.seq, cursor.chain);
    let mut new = Vec::with_capacity(events.len());
    for event in events {
        if event.seq <= seq {
            if event.seq == cursor.seq && event.chain != cursor.chain {
                return Taken::Broken;
            }
            continue;
        }
        if !event.continues(chain, seq) {
            let gap_start = match &event.event {
                signet_common::messages::Event::Gap { from, .. } => *from,
                _ => event.seq,
            };
            return if gap_start > seq + 1 && new.is_empty() { Taken::Ahead } else { Taken::Broken };
        }
        (seq, chain) = (event.seq, event.chain);
        new.push(event);
    }
    Taken::New(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use signet_common::Jti;
    use signet_common::messages::Event;

    fn chain(log: &LogId, count: u64) -> Vec<Chained> {
        let mut at = ChainHash::genesis(log);
        (1..=count)
            .map(|seq| {
                let event = Chained::next(at, seq, Event::Accepted { jti: Jti::generate(), at: 1 }).unwrap();
                at = event.chain;
                event
            })
            .collect()
    }

    fn cursor(log: &LogId, events: &[Chained], seq: usize) -> Cursor {
        let chain = if seq == 0 { ChainHash::genesis(log) } else { events[seq - 1].chain };
        Cursor { log_id: log.clone(), seq: seq as u64, chain, hold: Hold::None }
    }

    #[test]
    fn reports_overlap_and_continue() {
        let log = LogId::generate();
        let events = chain(&log, 5);
        assert_eq!(take(&cursor(&log, &events, 2), events[1..].to_vec()), Taken::New(events[2..].to_vec()));
        assert_eq!(take(&cursor(&log, &events, 5), events.clone()), Taken::New(vec![]));
        assert_eq!(take(&cursor(&log, &events, 1), events[3..].to_vec()), Taken::Ahead);
        let other = chain(&log, 5);
        assert_eq!(take(&cursor(&log, &events, 2), other[2..].to_vec()), Taken::Broken);
        assert_eq!(take(&cursor(&log, &events, 2), other[1..].to_vec()), Taken::Broken);
    }

    #[test]
    fn hellos_are_judged_by_log_head_and_chain() {
        let (log, other) = (LogId::generate(), LogId::generate());
        let events = chain(&log, 5);
        let known = cursor(&log, &events, 3);
        let hello = |log: &LogId, head: usize, new_log| HelloLog {
            log_id: log.clone(),
            head: head as u64,
            chain: if head == 0 { ChainHash::genesis(log) } else { events[head - 1].chain },
            new_log,
        };
        assert_eq!(judge_hello(None, &hello(&log, 0, true), false), Verdict::Begin);
        assert_eq!(judge_hello(None, &hello(&log, 5, false), false), Verdict::CatchUp);
        let unheard = cursor(&log, &events, 0);
        assert_eq!(judge_hello(Some(&unheard), &hello(&log, 0, true), false), Verdict::Begin);
        assert_eq!(judge_hello(Some(&unheard), &hello(&log, 0, false), false), Verdict::Continue);
        assert_eq!(judge_hello(Some(&known), &hello(&log, 3, false), false), Verdict::Continue);
        assert_eq!(judge_hello(Some(&known), &hello(&log, 5, false), false), Verdict::Continue);
        assert!(matches!(judge_hello(Some(&known), &hello(&log, 2, false), false), Verdict::SetAside(_)));
        let cloned = HelloLog { chain: ChainHash::genesis(&other), ..hello(&log, 3, false) };
        assert!(matches!(judge_hello(Some(&known), &cloned, false), Verdict::SetAside(_)));
        assert_eq!(judge_hello(Some(&known), &hello(&other, 0, true), false), Verdict::Begin);
        assert_eq!(judge_hello(Some(&known), &hello(&other, 4, false), false), Verdict::CatchUp);
        assert!(matches!(judge_hello(Some(&known), &hello(&other, 4, false), true), Verdict::SetAside(_)));
        let aside = Cursor { hold: Hold::SetAside, ..known.clone() };
        assert_eq!(judge_hello(Some(&aside), &hello(&other, 0, true), false), Verdict::StaysAside);
        let accepted = Cursor { hold: Hold::Accepted, ..known };
        assert_eq!(judge_hello(Some(&accepted), &hello(&log, 2, false), false), Verdict::NewLog);
        assert_eq!(judge_hello(Some(&accepted), &hello(&other, 0, true), false), Verdict::Begin);
    }
}
