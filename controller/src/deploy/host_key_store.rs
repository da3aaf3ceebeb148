//! The SQL of pinned host keys.

use signet_common::time::Micros;

use crate::store::{Store, StoreError, Tx, statements};

statements! {
    HOST_KEYS = same("SELECT host, port, host_key FROM job_host_keys WHERE host IN ({list})");
    /// Never replaced: who changes a pinned key has another host.
    PIN = differ(
        "INSERT IGNORE INTO job_host_keys (host, port, host_key, job_id, pinned_at) VALUES (?, ?, ?, ?, ?)",
        "INSERT OR IGNORE INTO job_host_keys (host, port, host_key, job_id, pinned_at) VALUES (?, ?, ?, ?, ?)",
    );
    ALL_HOST_KEYS = same("SELECT host, port, host_key, job_id, pinned_at FROM job_host_keys ORDER BY host, port \
            LIMIT ? OFFSET ?");
    COUNT_HOST_KEYS = same("SELECT COUNT(*) FROM job_host_keys");
    HOST_KEY = same("SELECT host_key FROM job_host_keys WHERE host = ? AND port = ?");
    UNPIN = same("DELETE FROM job_host_keys WHERE host = ? AND port = ?");
}

/// Pinned keys of these hosts, by host and port.
pub(super) async fn host_keys(
    store: &Store,
    hosts: Vec<String>,
) -> Result<Vec<(String, i64, String)>, StoreError> {
    store.all(HOST_KEYS.query().list(hosts)).await
}

/// Keeps a host's key unless one is kept already; says whether it does.
pub(super) async fn pin(
    tx: &mut Tx,
    host: &str,
    port: u16,
    key: &str,
    job: i64,
    now: Micros,
) -> Result<bool, StoreError> {
    Ok(tx.run(PIN.bind(host).bind(i64::from(port)).bind(key).bind(job).bind(now)).await? == 1)
}

/// A pinned key.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct HostKeyRow {
    pub(super) host: String,
    pub(super) port: i64,
    pub(super) host_key: String,
    pub(super) job_id: i64,
    pub(super) pinned_at: i64,
}

/// A page of all pinned keys, by host and port, and how many there are.
pub(super) async fn all_host_keys(
    store: &Store,
    limit: usize,
    offset: usize,
) -> Result<(Vec<HostKeyRow>, i64), StoreError> {
    let rows = store.all(ALL_HOST_KEYS.bind(limit as u64).bind(offset as u64)).await?;
    let count: Option<(i64,)> = store.first(COUNT_HOST_KEYS.query()).await?;
    Ok((rows, count.map_or(0, |(n,)| n)))
}

/// Forgets a pinned key, and gives it.
pub(super) async fn unpin(tx: &mut Tx, host: &str, port: u16) -> Result<Option<String>, StoreError> {
    let key: Option<(String,)> = tx.first(HOST_KEY.bind(host).bind(i64::from(port))).await?;
    let gone = tx.run(UNPIN.bind(host).bind(i64::from(port))).await?;
    Ok(key.filter(|_| gone == 1).map(|(key,)| key))
}
