//! What can go wrong in the database, and which of it is tried again.

use std::time::Duration;

use super::Tx;
use crate::limits;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The setting makes no sense.
    #[error("database setting: {0}")]
    Config(String),
    /// Not reachable, or too slow: try again later.
    #[error("the database is not reachable: {0}")]
    Unavailable(String),
    /// Another transaction was in the way (MySQL 1213, 1205, 1020; SQLite busy): try again now.
    #[error("the transaction must be tried again: {0}")]
    Conflict(String),
    /// A unique key exists already.
    #[error("already there: {0}")]
    Duplicate(String),
    /// The statement or the data is wrong: a bug.
    #[error("the database refused: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the same may work a moment later.
    #[must_use]
    pub(crate) const fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Conflict(_) | Self::Duplicate(_))
    }

    /// Whether a stored value is not what its column says: it will not be so later either.
    #[must_use]
    pub(crate) fn is_corrupt(&self) -> bool {
        matches!(self, Self::Failed(why) if why.starts_with(CORRUPT))
    }
}

const CORRUPT: &str = "a stored value is corrupt";

/// A stored value that is not what its column says: the database was changed by hand.
pub(crate) fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("{CORRUPT}: {error}"))
}

/// MySQL: deadlock, lock wait timeout, record changed since last read.
const MYSQL_RETRY: [u16; 3] = [1213, 1205, 1020];
/// MySQL: what a server says that is full, starting, stopping or read-only for a while, or whose table is being migrated.
const MYSQL_UNAVAILABLE: [u16; 8] = [1021, 1040, 1053, 1114, 1203, 1290, 1412, 1927];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let text = error.to_string();
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::BeginFailed => {
                Self::Unavailable(text)
            }
            // A server that dies in the middle of an answer leaves a torn packet.
            E::Protocol(_) => Self::Unavailable(text),
            E::Database(db) => {
                if db.is_unique_violation() {
                    return Self::Duplicate(db.message().to_owned());
                }
                if let Some(mysql) = db.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
                    return match mysql.number() {
                        n if MYSQL_RETRY.contains(&n) => Self::Conflict(text),
                        n if MYSQL_UNAVAILABLE.contains(&n) => Self::Unavailable(text),
                        _ => Self::Failed(text),
                    };
                }
                // SQLite's primary result code is the low byte: 5 busy, 6 locked, 10 I/O, 13 full, 14 can't open.
                match db.code().and_then(|c| c.parse::<u32>().ok()).map(|c| c & 0xff) {
                    Some(5 | 6) => Self::Conflict(text),
                    Some(10 | 13 | 14) => Self::Unavailable(text),
                    _ => Self::Failed(text),
                }
            }
            _ => Self::Failed(text),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::Execute(error) => error.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Runs a block in a transaction and commits it; on a conflict the whole of it is tried again:
/// `in_transaction!(store, |tx| -> Result<T> { … })`. Inside, `return` and `?` leave the block, and the transaction
/// leaves no trace. A macro, because a future over a borrowed transaction can't be named by a `Send` bound yet.
macro_rules! in_transaction {
    ($store:expr, |$tx:ident| -> $ret:ty $body:block) => {{
        let mut attempt = $crate::store::Attempt::default();
        loop {
            let done: $ret = match $store.begin().await {
                Ok(mut transaction) => {
                    let $tx = &mut transaction;
                    let done = $crate::store::giving::<$ret, _>(async { $body }).await;
                    $crate::store::Attempt::commit(transaction, done).await
                }
                Err(error) => Err(error.into()),
            };
            if !attempt.again(&done).await {
                break done;
            }
        }
    }};
}
pub(crate) use in_transaction;

/// Tells the compiler what a block gives.
pub(crate) fn giving<R, F: Future<Output = R>>(block: F) -> F {
    block
}

/// Counts the tries of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    tried: u32,
}

impl Attempt {
    /// Commits what a block did, unless it failed.
    pub(crate) async fn commit<T, E: From<StoreError>>(tx: Tx, done: Result<T, E>) -> Result<T, E> {
        let done = done?;
        tx.commit().await?;
        Ok(done)
    }

    /// Whether to try again; waits a moment before.
    pub(crate) async fn again<T, E: AsStoreError>(&mut self, done: &Result<T, E>) -> bool {
        self.tried += 1;
        let conflict = done
            .as_ref()
            .err()
            .and_then(AsStoreError::as_store_error)
            .is_some_and(|e| matches!(e, StoreError::Conflict(_)));
        if !conflict || self.tried >= limits::TRANSACTION_TRIES_MAX {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=5) * u64::from(self.tried))).await;
        true
    }
}

/// An error that may be a [`StoreError`] inside.
pub trait AsStoreError {
    /// The store's error, when it is one.
    fn as_store_error(&self) -> Option<&StoreError>;
}

impl AsStoreError for StoreError {
    fn as_store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}
