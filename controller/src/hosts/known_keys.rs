//! The agents' keys in memory: every report and heartbeat needs one.
//!
//! The table says what counts. Changes of any controller are read at most a second late, an unknown key at once.

use std::collections::HashMap;
use std::sync::Mutex;

use signet_common::{AgentId, KeyId};

use super::model::KnownKey;
use super::store::{self, AgentRow};
use crate::error::{Error, Result};
use crate::limits::{KNOWN_KEYS_FRESH_MILLISECONDS, KNOWN_KEYS_OVERLAP_SECONDS, KNOWN_KEYS_WHOLE_SECONDS};
use crate::store::Store;
use signet_common::time::Micros;

/// Every key by agent.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<AgentId, KnownKey>,
    /// When changes were last read.
    read_at: i64,
    /// When the whole table was last read.
    whole_at: i64,
    /// Something was changed here since.
    stale: bool,
}

impl State {
    /// From when on changes are to be read now, if they are.
    fn since(&self, now: i64) -> Option<i64> {
        if now - self.whole_at >= KNOWN_KEYS_WHOLE_SECONDS * 1_000_000 {
            return Some(0);
        }
        let fresh = now - self.read_at < KNOWN_KEYS_FRESH_MILLISECONDS * 1_000;
        // Transactions commit in another order than they took their time, and controllers' clocks differ.
        (self.stale || !fresh).then_some(self.read_at - KNOWN_KEYS_OVERLAP_SECONDS * 1_000_000)
    }

    fn keep(&mut self, rows: Vec<AgentRow>) -> Result<()> {
        for row in rows {
            let known = row.known()?;
            self.keys.insert(known.key.agent_id(), known);
        }
        Ok(())
    }

    fn find(&self, id: &KeyId) -> Option<KnownKey> {
        self.keys.get(&id.agent_id()).filter(|k| k.key.id() == id).cloned()
    }
}

impl KnownKeys {
    /// The key with this id, whatever its standing.
    pub(super) async fn find(&self, db: &Store, id: &KeyId) -> Result<Option<KnownKey>> {
        let now = Micros::now().0;
        let since = self.lock()?.since(now);
        if let Some(since) = since {
            // Before the look: what is changed here meanwhile makes it stale again.
            self.lock()?.stale = false;
            let rows = store::changed_agents(db, since).await?;
            let mut state = self.lock()?;
            state.keep(rows)?;
            state.read_at = now;
            if since == 0 {
                state.whole_at = now;
            }
        }
        if let Some(found) = self.lock()?.find(id) {
            return Ok(Some(found));
        }
        // Another controller may have enrolled it a moment ago; a message is refused for good, so the table decides.
        let Some(row) = store::agent_of(db, &id.agent_id()).await? else { return Ok(None) };
        let mut state = self.lock()?;
        state.keep(vec![row])?;
        Ok(state.find(id))
    }

    /// Makes the next look read what changed.
    pub(super) fn stale(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.stale = true;
        }
    }

    fn lock(&self) -> Result<std::sync::MutexGuard<'_, State>> {
        self.state.lock().map_err(|_| Error::Internal("the known keys are poisoned".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn only_lately_changed_keys_are_read_again() {
        let now = 100_000 * SECOND;
        assert_eq!(State::default().since(now), Some(0), "all, at first");
        let read = State { read_at: now, whole_at: now, ..State::default() };
        assert_eq!(read.since(now + SECOND / 2), None);
        // However many were enrolled at once: a while later they are no longer read.
        assert_eq!(read.since(now + SECOND), Some(now - KNOWN_KEYS_OVERLAP_SECONDS * SECOND));
        let stale = State { stale: true, ..read };
        assert_eq!(stale.since(now), Some(now - KNOWN_KEYS_OVERLAP_SECONDS * SECOND));
        assert_eq!(stale.since(now + KNOWN_KEYS_WHOLE_SECONDS * SECOND), Some(0));
    }

    #[tokio::test]
    async fn sqlite_memory_a_key_is_known_from_its_commit_on() {
        let database = signet_testkit::fresh_sqlite();
        let db = Store::open(database.url()).unwrap();
        db.migrate().await.unwrap();
        let key = signet_common::SigningKey::generate().unwrap().public().clone();
        let known = KnownKeys::default();
        // A look a moment before, as another host's heartbeat causes.
        assert!(known.find(&db, key.id()).await.unwrap().is_none());
        let mut tx = db.begin().await.unwrap();
        let (host, now) = ("h1".parse().unwrap(), Micros::now());
        store::insert_agent(&mut tx, &key, &host, super::super::model::KeyStanding::Accepted, None, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert!(known.find(&db, key.id()).await.unwrap().is_some());
    }
}
