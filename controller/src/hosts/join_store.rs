//! The SQL of join tokens and their uses. Nobody else reads these tables.

use signet_common::AgentId;
use signet_common::time::Micros;

use crate::store::{Store, StoreError, Tx, statements};

/// A token with how often it was used.
macro_rules! token {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.sealed, t.fingerprint, t.grp, t.hostname, t.max_uses, t.expires_at, t.revoked_at, \
                t.created_at, t.created_by, (SELECT COUNT(*) FROM join_token_uses u WHERE u.token_id = t.id) AS uses \
                FROM join_tokens t ",
            $rest
        )
    };
}

statements! {
    INSERT_TOKEN = same("INSERT INTO join_tokens (id, sealed, fingerprint, grp, hostname, max_uses, expires_at, \
            created_at, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
    SELECT_TOKEN = same(token!("WHERE t.id = ?"));
    LIST_TOKENS = same(token!("WHERE t.id > ? ORDER BY t.id LIMIT ?"));
    LOCK_TOKEN = same("UPDATE join_tokens SET max_uses = max_uses WHERE id = ?");
    /// The first word stays.
    REVOKE_TOKEN = same("UPDATE join_tokens SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?");
    SELECT_USE = same("SELECT used_at FROM join_token_uses WHERE token_id = ? AND agent_id = ?");
    INSERT_USE = same("INSERT INTO join_token_uses (token_id, agent_id, used_at) VALUES (?, ?, ?)");
    DELETE_OLD_USES = same("DELETE FROM join_token_uses WHERE token_id IN \
            (SELECT id FROM join_tokens WHERE expires_at < ?)");
    DELETE_OLD_TOKENS = same("DELETE FROM join_tokens WHERE expires_at < ?");
}

/// A token as it is stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct TokenRow {
    pub(super) id: String,
    /// The secret's verifier, sealed with the master key.
    pub(super) sealed: Vec<u8>,
    pub(super) fingerprint: String,
    pub(super) grp: Option<String>,
    /// The pattern that hostnames must fit.
    pub(super) hostname: Option<String>,
    pub(super) max_uses: i64,
    pub(super) expires_at: i64,
    pub(super) revoked_at: Option<i64>,
    pub(super) created_at: i64,
    pub(super) created_by: String,
    /// How many agents it let in.
    pub(super) uses: i64,
}

/// Adds a token; `uses` and `revoked_at` are not its own.
pub(super) async fn insert(tx: &mut Tx, row: &TokenRow) -> Result<(), StoreError> {
    let query = INSERT_TOKEN.bind(row.id.as_str()).bind(row.sealed.as_slice()).bind(row.fingerprint.as_str());
    let query = query.bind(row.grp.as_deref()).bind(row.hostname.as_deref()).bind(row.max_uses);
    let query = query.bind(row.expires_at).bind(row.created_at).bind(row.created_by.as_str());
    tx.run(query).await.map(drop)
}

/// One token, inside a transaction.
pub(super) async fn token(tx: &mut Tx, id: &str) -> Result<Option<TokenRow>, StoreError> {
    tx.first(SELECT_TOKEN.bind(id)).await
}

/// One token, held until the end of the transaction, so that its uses are counted one after the other.
pub(super) async fn locked(tx: &mut Tx, id: &str) -> Result<Option<TokenRow>, StoreError> {
    tx.run(LOCK_TOKEN.bind(id)).await?;
    token(tx, id).await
}

/// Tokens by id, after this one.
pub(super) async fn list(store: &Store, after: &str, limit: usize) -> Result<Vec<TokenRow>, StoreError> {
    store.all(LIST_TOKENS.bind(after).bind(limit as u64)).await
}

/// Revokes a token; says whether there is one.
pub(super) async fn revoke(tx: &mut Tx, id: &str, now: Micros) -> Result<bool, StoreError> {
    Ok(tx.run(REVOKE_TOKEN.bind(now).bind(id)).await? > 0)
}

/// Whether a token has let this agent in before.
pub(super) async fn was_used(tx: &mut Tx, id: &str, agent: &AgentId) -> Result<bool, StoreError> {
    Ok(tx.first::<(i64,)>(SELECT_USE.bind(id).bind(agent)).await?.is_some())
}

/// Counts a use.
pub(super) async fn count_use(tx: &mut Tx, id: &str, agent: &AgentId, now: Micros) -> Result<(), StoreError> {
    tx.run(INSERT_USE.bind(id).bind(agent).bind(now)).await.map(drop)
}

/// Forgets tokens that expired before this.
pub(super) async fn delete_old(store: &Store, before: Micros) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.run(DELETE_OLD_USES.bind(before)).await?;
    tx.run(DELETE_OLD_TOKENS.bind(before)).await?;
    tx.commit().await
}
