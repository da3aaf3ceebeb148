//! A transaction on either database.

use sqlx::{MySql, Sqlite, Transaction};

use super::{Flavour, Query, Row, StoreError, within};

/// A transaction. Dropped without [`Tx::commit`], it leaves no trace.
#[derive(Debug)]
pub enum Tx {
    /// On MySQL or MariaDB, READ COMMITTED.
    MySql(Transaction<'static, MySql>),
    /// On SQLite, `BEGIN IMMEDIATE`.
    Sqlite(Transaction<'static, Sqlite>),
}

impl Tx {
    /// Runs a statement and says how many rows it matched.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run(&mut self, query: Query) -> Result<u64, StoreError> {
        within(async {
            match self {
                Self::MySql(tx) => query.run_mysql(&mut **tx).await,
                Self::Sqlite(tx) => query.run_sqlite(&mut **tx).await,
            }
        })
        .await
    }

    /// Reads all rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn all<T: Row>(&mut self, query: Query) -> Result<Vec<T>, StoreError> {
        within(async {
            match self {
                Self::MySql(tx) => query.all_mysql(&mut **tx).await,
                Self::Sqlite(tx) => query.all_sqlite(&mut **tx).await,
            }
        })
        .await
    }

    /// Reads the first row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn first<T: Row>(&mut self, query: Query) -> Result<Option<T>, StoreError> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// Makes it all last.
    ///
    /// # Errors
    /// When the database fails; whether the commit happened is then not known.
    pub async fn commit(self) -> Result<(), StoreError> {
        within(async {
            match self {
                Self::MySql(tx) => tx.commit().await?,
                Self::Sqlite(tx) => tx.commit().await?,
            }
            Ok(())
        })
        .await
    }

    /// Which database it is on.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        match self {
            Self::MySql(_) => Flavour::MySql,
            Self::Sqlite(_) => Flavour::Sqlite,
        }
    }
}
