//! Periodic work that one controller does at a time: claimed by a lease column, by the database's clock.

use signet_common::ids::StartId;

use crate::error::Result;
use crate::limits::LEASE_SECONDS;
use crate::store::{Store, in_transaction, statements};

statements! {
    TAKE_LEASE = differ(
        "UPDATE leases SET holder = ?, lease_until = CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) + ? \
            WHERE name = ? AND (holder = ? OR lease_until < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED))",
        "UPDATE leases SET holder = ?, lease_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ? \
            WHERE name = ? AND (holder = ? OR lease_until < CAST(unixepoch('subsec') * 1000000 AS INTEGER))",
    );
    SELECT_LEASE = differ(
        "SELECT holder, lease_until - CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) AS remaining FROM leases \
            WHERE name = ?",
        "SELECT holder, lease_until - CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS remaining FROM leases \
            WHERE name = ?",
    );
    MAKE_LEASE = differ(
        "INSERT IGNORE INTO leases (name, holder, lease_until) VALUES (?, '', 0)",
        "INSERT OR IGNORE INTO leases (name, holder, lease_until) VALUES (?, '', 0)",
    );
    DROP_LEASE = same("UPDATE leases SET lease_until = 0 WHERE name = ? AND holder = ?");
}

/// One controller's claim to a piece of periodic work.
#[derive(Debug, Clone)]
pub struct Lease {
    store: Store,
    name: &'static str,
    holder: String,
}

impl Lease {
    /// A claim of this process to the work with this name; nothing is taken yet.
    #[must_use]
    pub fn new(store: Store, name: &'static str) -> Self {
        Self { store, name, holder: StartId::generate().to_string() }
    }

    /// Takes or renews it; says whether this controller has it now. It is only read while another controller has it, or
    /// more than half of it is left.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(&self) -> Result<bool> {
        let held: Option<(String, i64)> = self.store.first(SELECT_LEASE.bind(self.name)).await?;
        if let Some((holder, left)) = held {
            if holder == self.holder && left > LEASE_SECONDS * 1_000_000 / 2 {
                return Ok(true);
            }
            if holder != self.holder && left > 0 {
                return Ok(false);
            }
        }
        in_transaction!(self.store, |tx| -> Result<bool> {
            let holder = self.holder.as_str();
            let take =
                || TAKE_LEASE.bind(holder).bind(LEASE_SECONDS * 1_000_000).bind(self.name).bind(holder);
            if tx.run(take()).await? == 1 {
                return Ok(true);
            }
            tx.run(MAKE_LEASE.bind(self.name)).await?;
            Ok(tx.run(take()).await? == 1)
        })
    }

    /// Lets another controller take it at once.
    pub async fn release(&self) {
        let done = in_transaction!(self.store, |tx| -> Result<()> {
            Ok(tx.run(DROP_LEASE.bind(self.name).bind(self.holder.as_str())).await.map(drop)?)
        });
        if let Err(error) = done {
            tracing::debug!(%error, lease = self.name, "the lease runs out by itself");
        }
    }
}
