//! The keys to which secrets for agents are sealed, as their hellos show them.

use std::collections::HashMap;

use signet_common::AgentId;

use crate::limits::BATCH_ROWS_MAX;
use crate::store::{StoreError, Tx, corrupt, statements};

statements! {
    SET_KEY = same("UPDATE agents SET sealing_key = ? WHERE agent_id = ?");
    KEYS = same("SELECT agent_id, sealing_key FROM agents WHERE sealing_key IS NOT NULL AND agent_id IN ({list})");
}

/// Keeps the key to which secrets for this agent are sealed.
pub(super) async fn set(tx: &mut Tx, id: &AgentId, key: &str) -> Result<(), StoreError> {
    tx.run(SET_KEY.bind(key).bind(id)).await.map(drop)
}

/// Those of these agents that showed one, in base64.
pub(super) async fn of(tx: &mut Tx, agents: &[AgentId]) -> Result<HashMap<AgentId, String>, StoreError> {
    let mut all = HashMap::new();
    for some in agents.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<(String, String)> = tx.all(KEYS.query().list(some)).await?;
        for (agent, key) in rows {
            all.insert(agent.parse().map_err(corrupt)?, key);
        }
    }
    Ok(all)
}
