//! What tests stand on: databases and vhosts of their own on shared services, whole private services that may be
//! killed, a proxy that breaks connections, and waiting without sleeping.
//!
//! A test that runs on a pair of database and bus carries `sqlite_memory` or `mariadb_rabbitmq` in its path, which
//! [`on_both_pairs!`] does; `scripts/test` counts them and fails where a pair ran none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "code for tests alone: what goes wrong fails the test, with its reason"
)]

mod database;
mod disk;
mod pair;
mod private;
mod proxy;
mod ran;
mod services;
pub mod ssh;
pub mod sshd;
mod vhost;
mod wait;

pub use database::{MysqlDatabase, SqliteDatabase, fresh_mysql_database, fresh_sqlite};
pub use disk::on_a_disk_of;
pub use pair::{Database, Pair, Parts};
pub use private::{Dump, PrivateServices};
pub use proxy::{ChaosProxy, Fault};
pub use ran::{not_ran, ran};
pub use services::Services;
pub use vhost::{Vhost, fresh_vhost};
pub use wait::eventually;
