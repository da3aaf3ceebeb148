//! The table of repositories. Nobody else reads it.

use signet_common::time::Micros;

use super::model::{About, Repository};
use crate::store::{Read, Store, StoreError, Tx, Value, corrupt, statements};

macro_rules! entry {
    ($rest:literal) => {
        concat!("SELECT id, url, about, allowed_signers, created_at, updated_at FROM repositories ", $rest)
    };
}

statements! {
    LIST = same(entry!("ORDER BY url, id"));
    ONE = same(entry!("WHERE id = ?"));
    COUNT = same("SELECT COUNT(*) AS number FROM repositories");
    INSERT = same("INSERT INTO repositories (id, url, url_digest, sealed, about, allowed_signers, created_at, updated_at) \
            VALUES {rows:8}");
    SET_CREDENTIAL = same("UPDATE repositories SET sealed = ?, about = ?, updated_at = ? WHERE id = ?");
    SET_SIGNERS = same("UPDATE repositories SET allowed_signers = ?, updated_at = ? WHERE id = ?");
    DELETE = same("DELETE FROM repositories WHERE id = ?");
    MATCHING = same("SELECT id, url_digest, sealed, allowed_signers FROM repositories WHERE url_digest IN ({list})");
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    id: String,
    url: String,
    about: Option<String>,
    allowed_signers: Option<String>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<EntryRow> for Repository {
    type Error = StoreError;
    fn try_from(row: EntryRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            url: row.url,
            about: row.about.as_deref().map(serde_json::from_str).transpose().map_err(corrupt)?,
            allowed_signers: row.allowed_signers,
            created_at: Micros(row.created_at),
            updated_at: Micros(row.updated_at),
        })
    }
}

/// Every entry, by its address.
pub(super) async fn list(store: &Store) -> Result<Vec<Repository>, StoreError> {
    let rows: Vec<EntryRow> = store.all(LIST.query()).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

pub(super) async fn one(mut read: impl Read, id: &str) -> Result<Option<Repository>, StoreError> {
    let rows: Vec<EntryRow> = read.all(ONE.bind(id)).await?;
    rows.into_iter().next().map(TryInto::try_into).transpose()
}

pub(super) async fn count(tx: &mut Tx) -> Result<i64, StoreError> {
    let rows: Vec<(i64,)> = tx.all(COUNT.query()).await?;
    Ok(rows.first().map_or(0, |(number,)| *number))
}

fn json(about: Option<&About>) -> Result<Option<String>, StoreError> {
    about.map(serde_json::to_string).transpose().map_err(corrupt)
}

/// Fails with [`StoreError::Duplicate`] when there is one for this address.
pub(super) async fn insert(
    tx: &mut Tx,
    new: &Repository,
    digest: &str,
    sealed: Option<Vec<u8>>,
) -> Result<(), StoreError> {
    let row: [Value; 8] = [
        new.id.as_str().into(),
        new.url.as_str().into(),
        digest.into(),
        sealed.into(),
        json(new.about.as_ref())?.into(),
        new.allowed_signers.as_deref().into(),
        new.created_at.into(),
        new.updated_at.into(),
    ];
    tx.run(INSERT.query().rows([row])).await.map(drop)
}

pub(super) async fn set_credential(
    tx: &mut Tx,
    id: &str,
    credential: Option<(Vec<u8>, &About)>,
    now: Micros,
) -> Result<(), StoreError> {
    let about = json(credential.as_ref().map(|(_, about)| *about))?;
    let sealed = credential.map(|(sealed, _)| sealed);
    tx.run(SET_CREDENTIAL.bind(sealed).bind(about).bind(now).bind(id)).await.map(drop)
}

pub(super) async fn set_signers(
    tx: &mut Tx,
    id: &str,
    signers: Option<&str>,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(SET_SIGNERS.bind(signers).bind(now).bind(id)).await.map(drop)
}

/// Deletes an entry; says whether there was one.
pub(super) async fn delete(tx: &mut Tx, id: &str) -> Result<bool, StoreError> {
    Ok(tx.run(DELETE.bind(id)).await? > 0)
}

/// An entry that counts for a repository.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Match {
    pub(super) id: String,
    pub(super) url_digest: String,
    pub(super) sealed: Option<Vec<u8>>,
    pub(super) allowed_signers: Option<String>,
}

/// The entries for these addresses, in no order.
pub(super) async fn matching(store: &Store, digests: &[String]) -> Result<Vec<Match>, StoreError> {
    store.all(MATCHING.query().list(digests.iter().map(String::as_str))).await
}
