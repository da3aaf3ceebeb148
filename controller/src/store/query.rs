//! Statements and their values, without naming a database.

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::{Query as SqlxQuery, QueryAs};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, FromRow, MySql, Sqlite};

use super::{Flavour, StoreError};

/// A row type that reads from both databases: `#[derive(sqlx::FromRow)]` makes one.
pub trait Row: for<'r> FromRow<'r, MySqlRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}
impl<T: for<'r> FromRow<'r, MySqlRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin> Row for T {}

/// One SQL text, or two where the databases differ. Markers: `{list}` takes any number of values (`?, ?, ?`),
/// `{rows:N}` any number of rows of N values each.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    mysql: &'static str,
    sqlite: &'static str,
}

impl Statement {
    /// The same text for both.
    #[must_use]
    pub const fn same(text: &'static str) -> Self {
        Self { mysql: text, sqlite: text }
    }

    /// One text each.
    #[must_use]
    pub const fn differ(mysql: &'static str, sqlite: &'static str) -> Self {
        Self { mysql, sqlite }
    }

    /// A query without values yet.
    #[must_use]
    pub fn query(self) -> Query {
        Query { statement: self, values: Vec::new(), lists: Vec::new() }
    }

    /// Shorthand: a query that begins with this value.
    #[must_use]
    pub fn bind(self, value: impl Into<Value>) -> Query {
        self.query().bind(value)
    }
}

/// Declares a slice's statements as constants, and lists them in `ALL` for the test that prepares each on both
/// databases: `NAME = same("text");` or `NAME = differ("mysql", "sqlite");`.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $kind:ident($($text:expr),+ $(,)?);)*) => {
        $($(#[$doc])* const $name: $crate::store::Statement = $crate::store::Statement::$kind($($text),+);)*
        /// Every statement of this slice by name.
        pub const ALL: &[(&str, $crate::store::Statement)] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use statements;

/// A value of one of the few column types that both databases share.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// BIGINT.
    Int(Option<i64>),
    /// DOUBLE.
    Real(Option<f64>),
    /// VARCHAR, TEXT.
    Text(Option<String>),
    /// BLOB.
    Blob(Option<Vec<u8>>),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident, |$x:ident| $convert:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($x: $from) -> Self {
                Self::$variant(Some($convert))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(x: Option<$from>) -> Self {
                Self::$variant(x.map(|$x| $convert))
            }
        }
    )*};
}
value_from! {
    i64 => Int, |x| x;
    i32 => Int, |x| i64::from(x);
    u32 => Int, |x| i64::from(x);
    u64 => Int, |x| i64::try_from(x).unwrap_or(i64::MAX);
    bool => Int, |x| i64::from(x);
    signet_common::time::Micros => Int, |x| x.0;
    f64 => Real, |x| x;
    String => Text, |x| x;
    &str => Text, |x| x.to_owned();
    &signet_common::AgentId => Text, |x| x.to_string();
    &signet_common::Hostname => Text, |x| x.to_string();
    &signet_common::TaskId => Text, |x| x.to_string();
    &signet_common::Jti => Text, |x| x.to_string();
    &signet_common::LogId => Text, |x| x.to_string();
    &signet_common::StartId => Text, |x| x.to_string();
    &signet_common::KeyId => Text, |x| x.to_string();
    signet_common::chain::ChainHash => Text, |x| x.to_string();
    Vec<u8> => Blob, |x| x;
    &[u8] => Blob, |x| x.to_vec();
}

/// Binds every value: the two drivers' query types share no trait for that.
macro_rules! bind_all {
    ($query:ident, $values:expr) => {
        for value in $values {
            $query = match value {
                Value::Int(x) => $query.bind(x),
                Value::Real(x) => $query.bind(x),
                Value::Text(x) => $query.bind(x),
                Value::Blob(x) => $query.bind(x),
            };
        }
    };
}

/// A statement with its values.
#[derive(Debug, Clone)]
pub struct Query {
    statement: Statement,
    values: Vec<Value>,
    /// How many values (or rows) each marker of the text takes, in order.
    lists: Vec<usize>,
}

impl Query {
    /// The next `?`.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// The next `{list}`, in any order and without regard to repetitions. An empty list matches nothing.
    #[must_use]
    pub fn list<V: Into<Value>>(mut self, values: impl IntoIterator<Item = V>) -> Self {
        let before = self.values.len();
        self.values.extend(values.into_iter().map(Into::into));
        // `IN ()` is not SQL; NULL equals nothing.
        let last = self.values[before..].last().cloned().unwrap_or(Value::Text(None));
        // Filled up to a power of two: few texts, so that a connection has them prepared.
        let count = (self.values.len() - before).next_power_of_two();
        self.values.resize(before + count, last);
        self.lists.push(count);
        self
    }

    /// The next `{rows:N}`.
    #[must_use]
    pub fn rows<const N: usize>(mut self, rows: impl IntoIterator<Item = [Value; N]>) -> Self {
        let mut count = 0;
        for row in rows {
            self.values.extend(row);
            count += 1;
        }
        self.lists.push(count);
        self
    }

    /// The SQL text with its markers written out. A marker without values counts as one.
    pub(super) fn text(&self, flavour: Flavour) -> String {
        let mut rest = match flavour {
            Flavour::MySql => self.statement.mysql,
            Flavour::Sqlite => self.statement.sqlite,
        };
        let mut lists = self.lists.iter();
        let mut out = String::with_capacity(rest.len() + self.values.len() * 2);
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (marker, after) = after.split_once('}').unwrap_or((after, ""));
            let count = lists.next().copied().unwrap_or(1);
            let one = match marker.strip_prefix("rows:").and_then(|n| n.parse::<usize>().ok()) {
                Some(columns) => format!("({})", vec!["?"; columns].join(",")),
                None => "?".to_owned(),
            };
            out.push_str(&vec![one.as_str(); count].join(","));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    pub(super) async fn all_mysql<'e, T: Row>(
        self,
        on: impl sqlx::Executor<'e, Database = MySql>,
    ) -> Result<Vec<T>, StoreError> {
        let text = AssertSqlSafe(self.text(Flavour::MySql));
        let mut query: QueryAs<'_, MySql, T, MySqlArguments> = sqlx::query_as(text);
        bind_all!(query, self.values);
        Ok(query.fetch_all(on).await?)
    }

    pub(super) async fn all_sqlite<'e, T: Row>(
        self,
        on: impl sqlx::Executor<'e, Database = Sqlite>,
    ) -> Result<Vec<T>, StoreError> {
        let text = AssertSqlSafe(self.text(Flavour::Sqlite));
        let mut query: QueryAs<'_, Sqlite, T, SqliteArguments> = sqlx::query_as(text);
        bind_all!(query, self.values);
        Ok(query.fetch_all(on).await?)
    }

    pub(super) async fn run_mysql<'e>(
        self,
        on: impl sqlx::Executor<'e, Database = MySql>,
    ) -> Result<u64, StoreError> {
        let text = AssertSqlSafe(self.text(Flavour::MySql));
        let mut query: SqlxQuery<'_, MySql, MySqlArguments> = sqlx::query(text);
        bind_all!(query, self.values);
        Ok(query.execute(on).await?.rows_affected())
    }

    pub(super) async fn run_sqlite<'e>(
        self,
        on: impl sqlx::Executor<'e, Database = Sqlite>,
    ) -> Result<u64, StoreError> {
        let text = AssertSqlSafe(self.text(Flavour::Sqlite));
        let mut query: SqlxQuery<'_, Sqlite, SqliteArguments> = sqlx::query(text);
        bind_all!(query, self.values);
        Ok(query.execute(on).await?.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_written_out() {
        let statement = Statement::same("SELECT a FROM t WHERE b = ? AND c IN ({list})");
        let query = statement.bind(1_i64).list(["x", "y"]);
        assert_eq!(query.text(Flavour::Sqlite), "SELECT a FROM t WHERE b = ? AND c IN (?,?)");
        let three = statement.bind(1_i64).list(["x", "y", "z"]);
        assert_eq!(three.text(Flavour::Sqlite), "SELECT a FROM t WHERE b = ? AND c IN (?,?,?,?)");
        assert_eq!(three.values[1..], ["x", "y", "z", "z"].map(Value::from));
        let insert = Statement::same("INSERT INTO t (a, b) VALUES {rows:2}");
        let query = insert.query().rows([[Value::from(1_i64), "x".into()], [2_i64.into(), "y".into()]]);
        assert_eq!(query.text(Flavour::MySql), "INSERT INTO t (a, b) VALUES (?,?),(?,?)");
        let nothing = statement.bind(1_i64).list(Vec::<String>::new());
        assert_eq!(nothing.text(Flavour::Sqlite), "SELECT a FROM t WHERE b = ? AND c IN (?)");
    }
}
