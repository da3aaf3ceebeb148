//! Periodic work that one controller does at a time: claimed by a lease column, by the database's clock.

use signet_common::ids::StartId;

use super::store;
use crate::error::Result;
use crate::limits::LEASE_SECONDS;
use crate::store::{Store, in_transaction};

/// One controller's claim to a piece of periodic work.
#[derive(Debug, Clone)]
pub struct Lease {
    store: Store,
    name: &'static str,
    holder: String,
}

impl Lease {
    pub(super) fn new(store: Store, name: &'static str) -> Self {
        Self { store, name, holder: StartId::generate().to_string() }
    }

    /// Takes or renews it; says whether this controller has it now. It is only read while another controller has it, or
    /// more than half of it is left.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(&self) -> Result<bool> {
        if let Some((holder, left)) = store::lease(&self.store, self.name).await? {
            if holder == self.holder && left > LEASE_SECONDS * 1_000_000 / 2 {
                return Ok(true);
            }
            if holder != self.holder && left > 0 {
                return Ok(false);
            }
        }
        in_transaction!(self.store, |tx| -> Result<bool> {
            Ok(store::take_lease(tx, self.name, &self.holder, LEASE_SECONDS).await?)
        })
    }

    /// Lets another controller take it at once.
    pub async fn release(&self) {
        let done = in_transaction!(self.store, |tx| -> Result<()> {
            Ok(store::drop_lease(tx, self.name, &self.holder).await?)
        });
        if let Err(error) = done {
            tracing::debug!(%error, lease = self.name, "the lease runs out by itself");
        }
    }
}
