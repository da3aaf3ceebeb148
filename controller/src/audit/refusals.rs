//! What was refused: the first at once, those like it counted by the minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use signet_common::time::Micros;

use super::author::Author;
use super::note::{Action, Ended, Outcome, Row, Subject, cut};
use crate::limits::{REFUSALS_KEPT_MAX, REFUSALS_OF_STRANGERS_MAX};
use crate::network::network;

/// Refusals that were not written yet. Its size is bounded: who is one too many in a minute is counted with the others.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Key, Seen>>);

/// Refusals with the same key are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    who: String,
    via: Option<String>,
    from: Option<std::net::IpAddr>,
    action: &'static str,
    object: String,
    status: u16,
}

#[derive(Debug, Clone)]
struct Seen {
    by: Author,
    action: Action,
    why: String,
    first: Micros,
    count: u64,
    written: u64,
}

impl Refusals {
    pub(super) fn count(&self, by: &Author, subject: Subject<'_>, status: u16, why: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |by: &Author, object: String| Key {
            who: by.who.clone(),
            via: by.via.clone(),
            from: by.from.map(network),
            action: subject.action.as_str(),
            object,
            status,
        };
        let mut by = by.clone();
        let mut found = key(&by, cut(subject.object));
        // Strangers may have many addresses, and must not take the room of those who are known.
        let stranger = by.via.is_none();
        let room = if stranger { REFUSALS_OF_STRANGERS_MAX } else { REFUSALS_KEPT_MAX };
        let taken = if stranger { all.keys().filter(|key| key.via.is_none()).count() } else { all.len() };
        if taken >= room && !all.contains_key(&found) {
            by = Author { who: "many".into(), via: None, from: None, request: None };
            found = key(&by, "more kinds of refusals than are told apart in one minute".into());
        }
        let fresh = || Seen {
            by,
            action: subject.action,
            why: why.to_owned(),
            first: Micros::now(),
            count: 0,
            written: 0,
        };
        all.entry(found).or_insert_with(fresh).count += 1;
    }

    /// What is to be written now: what is new, and when its minute is over (or `all`) how many more came.
    pub(super) fn due(&self, now: Micros, all: bool) -> Vec<Due> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        kept.retain(|key, seen| {
            let over = all || seen.first.plus_seconds(60) <= now;
            let more = seen.count - seen.written;
            if more > 0 && (over || seen.written == 0) {
                let result =
                    if [401, 403, 429].contains(&key.status) { Outcome::Refused } else { Outcome::Failed };
                let ended = Ended { result, status: key.status, why: &seen.why, count: more };
                let subject = Subject { action: seen.action, object: &key.object };
                let row = Row::refused(&seen.by, subject, &ended, now);
                due.push(Due {
                    row,
                    key: key.clone(),
                    seen: Seen { count: more, written: 0, ..seen.clone() },
                });
                seen.written = seen.count;
            }
            !over
        });
        due
    }

    /// Counts again what could not be written.
    pub(super) fn put_back(&self, due: Vec<Due>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Due { key, seen, .. } in due {
            match kept.get_mut(&key) {
                Some(there) => there.count += seen.count,
                None => drop(kept.insert(key, seen)),
            }
        }
    }
}

/// A row that is to be written, and what it stands for.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) row: Row,
    key: Key,
    seen: Seen,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(refusals: &Refusals, who: &str) {
        let by = Author { who: who.into(), via: None, from: None, request: None };
        let subject = Subject { action: Action::RequestRefused, object: "POST /api/commands" };
        refusals.count(&by, subject, 403, "no");
    }

    fn counts(due: &[Due]) -> Vec<u64> {
        let entry = |due: &Due| serde_json::from_str::<serde_json::Value>(&due.row.entry).unwrap();
        due.iter().map(|due| entry(due)["count"].as_u64().unwrap()).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_by_the_minute() {
        let refusals = Refusals::default();
        let now = Micros::now();
        refuse(&refusals, "eve");
        assert_eq!(counts(&refusals.due(now, false)), [1]);
        (0..5).for_each(|_| refuse(&refusals, "eve"));
        assert!(refusals.due(now.plus_seconds(30), false).is_empty());
        assert_eq!(counts(&refusals.due(now.plus_seconds(61), false)), [5]);
        assert!(refusals.due(now.plus_seconds(122), false).is_empty());
        refuse(&refusals, "eve");
        refuse(&refusals, "mallory");
        let due = refusals.due(now, true);
        assert_eq!(counts(&due), [1, 1]);
        // The database was away.
        refuse(&refusals, "eve");
        refusals.put_back(due);
        assert_eq!(counts(&refusals.due(now, true)).iter().sum::<u64>(), 3);
    }

    #[test]
    fn memory_is_bounded_and_nothing_goes_uncounted() {
        let refusals = Refusals::default();
        (0..REFUSALS_KEPT_MAX + 10).for_each(|n| refuse(&refusals, &format!("eve{n}")));
        let rows = refusals.due(Micros::now(), true);
        assert_eq!(rows.len(), REFUSALS_OF_STRANGERS_MAX + 1);
        assert_eq!(counts(&rows).iter().sum::<u64>(), REFUSALS_KEPT_MAX as u64 + 10);
    }
}
