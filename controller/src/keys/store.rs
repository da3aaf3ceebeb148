//! The tables of keyrings and sealed secrets.

use signet_common::time::Micros;
use sqlx::FromRow;

use crate::store::{Read, Store, StoreError, Tx, statements};

statements! {
    KEYRINGS = same("SELECT signed FROM keyrings ORDER BY version");
    NEWEST = same("SELECT COALESCE(MAX(version), 0) FROM keyrings");
    MADE_AT = same("SELECT created_at FROM keyrings WHERE version = ?");
    INSERT_KEYRING = same("INSERT INTO keyrings (version, signed, created_at) VALUES (?, ?, ?)");
    SECRETS = same("SELECT name, sealed FROM secrets WHERE name IN ({list})");
    INSERT_SECRET = same("INSERT INTO secrets (name, sealed, created_at) VALUES (?, ?, ?)");
}

/// Every version of the keyring, oldest first, as JSON.
pub(super) async fn keyrings(tx: &mut Tx) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = tx.all(KEYRINGS.query()).await?;
    Ok(rows.into_iter().map(|(signed,)| signed).collect())
}

/// The newest keyring's version; 0 = none.
pub(super) async fn newest(mut read: impl Read) -> Result<u64, StoreError> {
    let row: Option<(i64,)> = read.first(NEWEST.query()).await?;
    Ok(row.map_or(0, |(version,)| version.unsigned_abs()))
}

/// When a version of the keyring was made.
pub(super) async fn made_at(store: &Store, version: u64) -> Result<Option<Micros>, StoreError> {
    let row: Option<(i64,)> = store.first(MADE_AT.bind(version)).await?;
    Ok(row.map(|(at,)| Micros(at)))
}

/// Fails with [`StoreError::Duplicate`] when there is this version already.
pub(super) async fn insert_keyring(
    tx: &mut Tx,
    version: u64,
    signed: &str,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(INSERT_KEYRING.bind(version).bind(signed).bind(now)).await.map(drop)
}

/// The sealed secrets of these names, as far as they are there.
pub(super) async fn secrets(tx: &mut Tx, names: Vec<String>) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    #[derive(FromRow)]
    struct Named {
        name: String,
        sealed: Vec<u8>,
    }
    let rows: Vec<Named> = tx.all(SECRETS.query().list(names)).await?;
    Ok(rows.into_iter().map(|row| (row.name, row.sealed)).collect())
}

/// Fails with [`StoreError::Duplicate`] when there is this secret already.
pub(super) async fn insert_secret(
    tx: &mut Tx,
    name: &str,
    sealed: &[u8],
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(INSERT_SECRET.bind(name).bind(sealed).bind(now)).await.map(drop)
}
