//! Every bound of the controller, by name.

/// Connections to MySQL.
pub const MYSQL_CONNECTIONS_MAX: u32 = 16;
/// Connections that read SQLite beside the one that writes.
pub const SQLITE_READERS_MAX: u32 = 4;
/// How long a request waits for a connection, in seconds.
pub const ACQUIRE_SECONDS_MAX: u64 = 5;
/// How often a transaction is tried when another is in its way.
pub const TRANSACTION_TRIES_MAX: u32 = 10;
/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Rows in one batch of writes.
pub const BATCH_ROWS_MAX: usize = 256;
/// Bytes in one batch of writes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
