//! The agents' keys in memory: every report and heartbeat needs one.
//!
//! The table says what counts. Changes of any controller are read at most a second late, an unknown key at once.

use std::collections::HashMap;
use std::sync::Mutex;

use signet_common::{AgentId, KeyId};

use super::model::KnownKey;
use super::store;
use crate::error::{Error, Result};
use crate::limits::{KNOWN_KEYS_FRESH_MILLISECONDS, KNOWN_KEYS_OVERLAP_SECONDS};
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
    /// The newest change that was read.
    newest: i64,
    /// When the table was last read.
    read_at: i64,
    /// When an unknown key last caused a read.
    missed_at: i64,
}

impl KnownKeys {
    /// The key with this id, whatever its standing.
    pub(super) async fn find(&self, db: &Store, id: &KeyId) -> Result<Option<KnownKey>> {
        let now = Micros::now().0;
        let agent = id.agent_id();
        let since = {
            let mut state = self.lock()?;
            let fresh = now - state.read_at < KNOWN_KEYS_FRESH_MILLISECONDS * 1_000;
            let found = state.keys.get(&agent).filter(|k| k.key.id() == id).cloned();
            // Strangers must not make every message a query.
            let missed_lately = now - state.missed_at < KNOWN_KEYS_FRESH_MILLISECONDS * 100;
            if fresh && (found.is_some() || missed_lately) {
                return Ok(found);
            }
            if found.is_none() {
                state.missed_at = now;
            }
            // Transactions commit in another order than they took their time.
            state.newest - KNOWN_KEYS_OVERLAP_SECONDS * 1_000_000
        };
        let rows = store::changed_agents(db, since).await?;
        let mut state = self.lock()?;
        for row in rows {
            state.newest = state.newest.max(row.updated_at);
            let known = row.known()?;
            state.keys.insert(known.key.agent_id(), known);
        }
        state.read_at = now;
        Ok(state.keys.get(&agent).filter(|k| k.key.id() == id).cloned())
    }

    /// Makes the next look read the table.
    pub(super) fn stale(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.read_at = 0;
        }
    }

    fn lock(&self) -> Result<std::sync::MutexGuard<'_, State>> {
        self.state.lock().map_err(|_| Error::Internal("the known keys are poisoned".into()))
    }
}
