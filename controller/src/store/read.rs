//! Where rows are read: each statement by itself, in a transaction that writes, or all of one moment.

use sqlx::{MySql, Sqlite, Transaction};

use super::{Query, Row, Store, StoreError, Tx, within};

/// Something that rows can be read from.
pub trait Read: Send {
    /// Reads all rows.
    ///
    /// # Errors
    /// [`StoreError`].
    fn all<T: Row>(&mut self, query: Query) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// Reads the first row.
    ///
    /// # Errors
    /// [`StoreError`].
    fn first<T: Row>(&mut self, query: Query) -> impl Future<Output = Result<Option<T>, StoreError>> + Send {
        async { Ok(self.all(query).await?.into_iter().next()) }
    }
}

impl<R: Read> Read for &mut R {
    async fn all<T: Row>(&mut self, query: Query) -> Result<Vec<T>, StoreError> {
        R::all(self, query).await
    }
}

/// Each statement by itself: it sees what is committed when it begins.
impl Read for &Store {
    async fn all<T: Row>(&mut self, query: Query) -> Result<Vec<T>, StoreError> {
        Store::all(self, query).await
    }
}

impl Read for Tx {
    async fn all<T: Row>(&mut self, query: Query) -> Result<Vec<T>, StoreError> {
        Tx::all(self, query).await
    }
}

/// All that is read here stood in the database at one moment. It can't write.
#[derive(Debug)]
pub enum Snapshot {
    /// On MySQL or MariaDB, REPEATABLE READ and READ ONLY.
    MySql(Transaction<'static, MySql>),
    /// On SQLite, a reader's transaction.
    Sqlite(Transaction<'static, Sqlite>),
}

impl Snapshot {
    /// Lets go of it at once. Dropped, it is let go of when its connection is used next, and until then the database keeps
    /// old rows for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(self) -> Result<(), StoreError> {
        within(async {
            match self {
                Self::MySql(tx) => tx.rollback().await?,
                Self::Sqlite(tx) => tx.rollback().await?,
            }
            Ok(())
        })
        .await
    }
}

impl Read for Snapshot {
    async fn all<T: Row>(&mut self, query: Query) -> Result<Vec<T>, StoreError> {
        within(async {
            match self {
                Self::MySql(tx) => query.all_mysql(&mut **tx).await,
                Self::Sqlite(tx) => query.all_sqlite(&mut **tx).await,
            }
        })
        .await
    }
}
