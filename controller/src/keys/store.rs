//! The tables of keyrings and sealed secrets.

use signet_common::time::Micros;
use sqlx::FromRow;

use crate::store::{Store, StoreError, Tx, statements};

statements! {
    KEYRINGS = same("SELECT signed FROM keyrings ORDER BY version");
    INSERT_KEYRING = same("INSERT INTO keyrings (version, signed, created_at) VALUES (?, ?, ?)");
    SECRET = same("SELECT sealed FROM secrets WHERE name = ?");
    INSERT_SECRET = same("INSERT INTO secrets (name, sealed, created_at) VALUES (?, ?, ?)");
}

/// Every version of the keyring, oldest first, as JSON.
pub(super) async fn keyrings(store: &Store) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = store.all(KEYRINGS.query()).await?;
    Ok(rows.into_iter().map(|(signed,)| signed).collect())
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

pub(super) async fn secret(store: &Store, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    #[derive(FromRow)]
    struct Sealed {
        sealed: Vec<u8>,
    }
    Ok(store.first::<Sealed>(SECRET.bind(name)).await?.map(|row| row.sealed))
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
