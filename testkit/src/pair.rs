//! The two pairs of database and bus on which tests run.

use std::sync::Arc;

use signet_common::bus::amqp::{AmqpBus, AmqpOptions, Retry, Role};
use signet_common::bus::memory::MemoryBus;
use signet_common::bus::topology::Topology;
use signet_common::bus::{Bus, Health};

use crate::{MysqlDatabase, SqliteDatabase, Vhost, fresh_mysql_database, fresh_sqlite, fresh_vhost};

/// A pair of database and bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// SQLite and the in-process bus, as in `signet up`.
    SqliteMemory,
    /// MariaDB and RabbitMQ, as in a real deployment.
    MariadbRabbitmq,
}

/// A database of the test's own.
#[derive(Debug)]
pub enum Database {
    /// One file.
    Sqlite(SqliteDatabase),
    /// One database on the shared server.
    Mysql(MysqlDatabase),
}

/// An empty database and an empty bus of the test's own, gone with this value.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub database: Database,
    broker: Broker,
}

#[derive(Debug)]
enum Broker {
    Memory(MemoryBus),
    Rabbit(Vhost),
}

impl Pair {
    /// Makes both parts.
    pub async fn parts(self) -> Parts {
        match self {
            Self::SqliteMemory => Parts {
                database: Database::Sqlite(fresh_sqlite()),
                broker: Broker::Memory(MemoryBus::new(Topology::default())),
            },
            Self::MariadbRabbitmq => {
                let (database, vhost) = tokio::join!(fresh_mysql_database(), fresh_vhost());
                Parts { database: Database::Mysql(database), broker: Broker::Rabbit(vhost) }
            }
        }
    }
}

impl Parts {
    /// What `SIGNET_DATABASE_URL` would be.
    #[must_use]
    pub fn database_url(&self) -> &str {
        match &self.database {
            Database::Sqlite(database) => database.url(),
            Database::Mysql(database) => database.url(),
        }
    }

    /// What `SIGNET_AMQP_URL` would be; `None` with the in-process bus.
    #[must_use]
    pub fn amqp_url(&self) -> Option<&str> {
        self.vhost().map(Vhost::url)
    }

    /// The vhost, with RabbitMQ.
    #[must_use]
    pub fn vhost(&self) -> Option<&Vhost> {
        match &self.broker {
            Broker::Memory(_) => None,
            Broker::Rabbit(vhost) => Some(vhost),
        }
    }

    /// The bus as a controller has it, connected.
    pub async fn controller_bus(&self) -> Arc<dyn Bus> {
        self.bus(Role::Controller).await
    }

    /// The bus as an agent has it, connected. In-process it is the same one.
    pub async fn agent_bus(&self) -> Arc<dyn Bus> {
        self.bus(Role::Agent).await
    }

    async fn bus(&self, role: Role) -> Arc<dyn Bus> {
        match &self.broker {
            Broker::Memory(bus) => Arc::new(bus.clone()),
            Broker::Rabbit(vhost) => {
                let bus = AmqpBus::start(AmqpOptions {
                    retry: Retry::quick(),
                    ..AmqpOptions::new(vhost.url(), "test", role)
                })
                .expect("a good URL");
                let up = bus.health().wait_for(|h| *h == Health::Up).await.map(drop);
                up.expect("the bus lives");
                Arc::new(bus)
            }
        }
    }

    /// Loses everything on the broker.
    pub async fn wipe_broker(&self) {
        match &self.broker {
            Broker::Memory(bus) => bus.wipe(),
            Broker::Rabbit(vhost) => vhost.wipe().await,
        }
    }
}

/// Runs `async fn name(pair: Pair)` on both pairs, as `sqlite_memory::name` and `mariadb_rabbitmq::name`.
///
/// ```ignore
/// signet_testkit::on_both_pairs!(a_command_runs, a_command_is_cancelled);
/// async fn a_command_runs(pair: Pair) { let parts = pair.parts().await; … }
/// ```
#[macro_export]
macro_rules! on_both_pairs {
    ($($name:ident),+ $(,)?) => {
        mod sqlite_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::Pair::SqliteMemory).await;
            })+
        }
        mod mariadb_rabbitmq {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::Pair::MariadbRabbitmq).await;
            })+
        }
    };
}
