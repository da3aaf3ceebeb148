//! Pools, transactions, migrations, and the few differences between MySQL and SQLite.
//!
//! There are two typed pools and one SQL text: both databases take `?`. A [`Statement`] is written once in a slice's
//! `store.rs` and listed in its `ALL`, so that a test can prepare every one on both databases. Slices build a [`Query`]
//! from it and run that on a [`Tx`] (or, reading only, on the [`Store`]).

mod query;
mod read;
mod retry;
mod tx;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{MySql, Transaction};
use tokio_util::sync::CancellationToken;

pub(crate) use query::statements;
pub use query::{Query, Row, Statement, Value};
pub use read::{Read, Snapshot};
pub use retry::{AsStoreError, StoreError};
pub(crate) use retry::{Attempt, corrupt, giving, in_transaction};
pub use tx::Tx;

use crate::limits;

static MYSQL_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/mysql");
static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// One round trip; the level is that of the next transaction alone.
const MYSQL_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
    START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

const MYSQL_BEGIN: &str = "BEGIN";

/// Begins a transaction whoever still waits for it: a connection on which nobody hears that it was begun would go back to the
/// pool inside of it, and show its next users that moment.
async fn begun(pool: &MySqlPool, statement: &'static str) -> Result<Transaction<'static, MySql>, StoreError> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await });
    begun.await.map_err(|e| StoreError::Unavailable(e.to_string()))?.map_err(Into::into)
}

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
}

#[derive(Clone, Debug)]
enum Db {
    MySql(MySqlPool),
    /// SQLite lets one connection write; WAL lets the others read meanwhile.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
    },
}

/// Which of the two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// MySQL or MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

impl Store {
    /// Makes the pools without connecting: the database may be down when the controller starts.
    ///
    /// # Errors
    /// When the URL is not `mysql://…` or `sqlite://…`.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let bad = |e: sqlx::Error| StoreError::Config(e.to_string());
        if url.starts_with("mysql://") || url.starts_with("mariadb://") {
            let options = MySqlConnectOptions::from_str(url)
                .map_err(bad)?
                .statement_cache_capacity(limits::PREPARED_STATEMENTS_MAX);
            let pool = MySqlPoolOptions::new()
                .max_connections(limits::MYSQL_CONNECTIONS_MAX)
                .acquire_timeout(Duration::from_secs(limits::ACQUIRE_SECONDS_MAX))
                // One that was at work a moment ago is not asked whether it lives: that would double the round trips.
                .test_before_acquire(false)
                .before_acquire(|connection, was| {
                    Box::pin(async move {
                        if was.idle_for.as_secs() >= limits::IDLE_CONNECTION_SECONDS {
                            sqlx::Connection::ping(connection).await?;
                        }
                        Ok(true)
                    })
                })
                // Old readers must not hold a snapshot: each statement sees what is committed.
                .after_connect(|connection, _| {
                    Box::pin(async move {
                        sqlx::query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                            .execute(&mut *connection)
                            .await?;
                        // Shorter than a statement's own limit, so that it is tried again instead of failing.
                        sqlx::query("SET SESSION innodb_lock_wait_timeout = ?")
                            .bind(limits::LOCK_WAIT_SECONDS)
                            .execute(connection)
                            .await?;
                        Ok(())
                    })
                })
                .connect_lazy_with(options);
            return Ok(Self { db: Db::MySql(pool) });
        }
        if !url.starts_with("sqlite:") {
            return Err(StoreError::Config("the database URL must begin with mysql:// or sqlite://".into()));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(bad)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(limits::ACQUIRE_SECONDS_MAX))
            .foreign_keys(false);
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .acquire_timeout(Duration::from_secs(limits::ACQUIRE_SECONDS_MAX))
            .connect_lazy_with(options.clone());
        let read = SqlitePoolOptions::new()
            .test_before_acquire(false)
            .max_connections(limits::SQLITE_READERS_MAX)
            .acquire_timeout(Duration::from_secs(limits::ACQUIRE_SECONDS_MAX))
            .connect_lazy_with(options);
        Ok(Self { db: Db::Sqlite { write, read } })
    }

    /// The URL of a SQLite database in a file.
    #[must_use]
    pub fn sqlite_url(path: &Path) -> String {
        format!("sqlite://{}", path.display())
    }

    /// Which database it is.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        match self.db {
            Db::MySql(_) => Flavour::MySql,
            Db::Sqlite { .. } => Flavour::Sqlite,
        }
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// When the database is down or a migration fails.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.db {
            Db::MySql(pool) => migrate_mysql(pool).await?,
            Db::Sqlite { write, .. } => SQLITE_MIGRATIONS.run(write).await?,
        }
        Ok(())
    }

    /// [`Store::migrate`], tried again while the database is not there, until `stop`.
    ///
    /// # Errors
    /// When a migration itself fails, or `stop` comes first.
    pub async fn migrate_when_there(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        loop {
            match self.migrate().await {
                Err(StoreError::Unavailable(why)) => {
                    tracing::warn!(%why, "the database is not reachable; trying again");
                }
                done => return done,
            }
            tokio::select! {
                () = stop.cancelled() => return Err(StoreError::Unavailable("stopped".into())),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it doesn't.
    pub async fn ping(&self) -> Result<(), StoreError> {
        within(async {
            match &self.db {
                Db::MySql(pool) => sqlx::query("SELECT 1").execute(pool).await.map(drop)?,
                Db::Sqlite { read, .. } => sqlx::query("SELECT 1").execute(read).await.map(drop)?,
            }
            Ok(())
        })
        .await
    }

    /// Begins a transaction that writes. SQLite: `BEGIN IMMEDIATE`, so that it never has to be upgraded.
    ///
    /// # Errors
    /// When the database is down or busy for too long.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        within(async {
            Ok(match &self.db {
                Db::MySql(pool) => Tx::MySql(begun(pool, MYSQL_BEGIN).await?),
                Db::Sqlite { write, .. } => Tx::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            })
        })
        .await
    }

    /// Begins to read what stands at one moment, for an answer of several statements. Call [`Snapshot::end`] after it.
    ///
    /// # Errors
    /// When the database is down or busy for too long.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        within(async {
            Ok(match &self.db {
                Db::MySql(pool) => Snapshot::MySql(begun(pool, MYSQL_SNAPSHOT).await?),
                Db::Sqlite { read, .. } => Snapshot::Sqlite(read.begin().await?),
            })
        })
        .await
    }

    /// Reads all rows, outside any transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn all<T: Row>(&self, query: Query) -> Result<Vec<T>, StoreError> {
        within(async {
            match &self.db {
                Db::MySql(pool) => query.all_mysql(pool).await,
                Db::Sqlite { read, .. } => query.all_sqlite(read).await,
            }
        })
        .await
    }

    /// Reads the first row, outside any transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn first<T: Row>(&self, query: Query) -> Result<Option<T>, StoreError> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// Prepares a statement without running it.
    ///
    /// # Errors
    /// When the database does not accept its text.
    pub async fn prepare(&self, statement: Statement) -> Result<(), StoreError> {
        use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};
        let text = AssertSqlSafe(statement.query().text(self.flavour())).into_sql_str();
        match &self.db {
            Db::MySql(pool) => pool.acquire().await?.prepare(text).await.map(drop)?,
            Db::Sqlite { write, .. } => write.acquire().await?.prepare(text).await.map(drop)?,
        }
        Ok(())
    }

    /// Closes all connections; those of a database that doesn't answer are left to the system.
    pub async fn close(&self) {
        let closed = within(async {
            match &self.db {
                Db::MySql(pool) => pool.close().await,
                Db::Sqlite { write, read } => {
                    read.close().await;
                    write.close().await;
                }
            }
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::warn!(%error, "not every connection to the database was closed");
        }
    }
}

/// Work of the database within its time: one that stalls is away, as one that refuses is.
async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let limit = Duration::from_secs(limits::STATEMENT_SECONDS_MAX);
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {} s", limit.as_secs()))))
}

/// One controller at a time: sqlx's own lock waits with a time-out of -1, which MariaDB takes for none at all. The lock
/// belongs to the connection, so that it goes with a controller that dies.
async fn migrate_mysql(pool: &MySqlPool) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await?;
    let lock = "SELECT GET_LOCK(CONCAT('signet.', DATABASE()), 60)";
    let (locked,): (Option<i64>,) = sqlx::query_as(lock).fetch_one(&mut *connection).await?;
    if locked != Some(1) {
        return Err(StoreError::Unavailable("another controller is bringing the schema up to date".into()));
    }
    let done = MYSQL_MIGRATIONS.run(pool).await;
    sqlx::query("SELECT RELEASE_LOCK(CONCAT('signet.', DATABASE()))").execute(&mut *connection).await?;
    Ok(done?)
}
