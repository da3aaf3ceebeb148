//! A database of its own for each test.

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tempfile::TempDir;

use crate::services::Services;

/// A MariaDB database that is dropped with this value.
#[derive(Debug)]
pub struct MysqlDatabase {
    url: String,
    name: String,
}

impl MysqlDatabase {
    /// `mysql://…/<its name>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Makes an empty database on the shared MariaDB.
///
/// # Panics
/// When there is no MariaDB; see [`Services::shared`].
pub async fn fresh_mysql_database() -> MysqlDatabase {
    let shared = &Services::shared().mysql_url;
    let name = format!("t_{}", uuid::Uuid::new_v4().simple());
    execute(shared, format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")).await;
    let (server, _) = shared.rsplit_once('/').expect("TEST_MYSQL_URL names a database");
    MysqlDatabase { url: format!("{server}/{name}"), name }
}

async fn execute(url: &str, sql: String) {
    let mut connection = MySqlConnection::connect(url).await.expect("MariaDB does not answer");
    connection.execute(AssertSqlSafe(sql)).await.expect("MariaDB refused");
    connection.close().await.expect("MariaDB went away");
}

impl Drop for MysqlDatabase {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {}", self.name);
        apart(async move { execute(&Services::shared().mysql_url, sql).await });
    }
}

/// Finishes a future from inside `drop`, where nothing can be awaited.
pub(crate) fn apart(work: impl Future<Output = ()> + Send + 'static) {
    let finish = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work);
    };
    if std::thread::spawn(finish).join().is_err() {
        eprintln!("testkit: cleaning up failed; scripts/services purge removes what is left");
    }
}

/// A directory for one SQLite file, deleted with this value.
#[derive(Debug)]
pub struct SqliteDatabase {
    directory: TempDir,
    url: String,
}

impl SqliteDatabase {
    /// `sqlite://<path>`; the file does not exist yet.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory in which the file and its journals are.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

/// Names an SQLite file in a directory of its own.
///
/// # Panics
/// When no directory can be made.
#[must_use]
pub fn fresh_sqlite() -> SqliteDatabase {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite://{}", directory.path().join("signet.db").display());
    SqliteDatabase { directory, url }
}
