//! Writes what was refused, and seals what is new.

use std::time::Duration;

use signet_common::time::Micros;
use signet_common::trail::{Block, Entries};
use tokio_util::sync::CancellationToken;

use super::Audit;
use super::refusals::Due;
use super::store::{self, BlockRow};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::leases::Lease;
use crate::limits::{AUDIT_BLOCK_ENTRIES_MAX, AUDIT_SEAL_SECONDS};
use crate::store::{StoreError, in_transaction};

/// Works until `stop`.
pub(super) async fn run(audit: Audit, keys: Keys, stop: CancellationToken) {
    let lease = Lease::new(audit.store.clone(), "audit");
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(Duration::from_secs(AUDIT_SEAL_SECONDS)) => {}
        }
        if let Err(error) = round(&audit, &keys, &lease, stop.is_cancelled()).await {
            tracing::warn!(%error, "the audit trail could not be sealed; it is tried again");
        }
    }
    lease.release().await;
}

async fn round(audit: &Audit, keys: &Keys, lease: &Lease, last: bool) -> Result<()> {
    audit.write_refusals(last).await?;
    if lease.take().await? {
        while audit.seal(keys).await? == AUDIT_BLOCK_ENTRIES_MAX {}
    }
    Ok(())
}

impl Audit {
    async fn write_refusals(&self, last: bool) -> Result<()> {
        let due = self.refusals.due(Micros::now(), last);
        if due.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = due.iter().map(|Due { row, .. }| row.clone()).collect();
        let written = in_transaction!(self.store, |tx| -> Result<()> { Ok(store::insert(tx, &rows).await?) });
        written.inspect_err(|_| self.refusals.put_back(due))
    }

    /// Seals the oldest entries that no block seals yet into one block; says how many they were.
    async fn seal(&self, keys: &Keys) -> Result<usize> {
        // Without a lock and without a transaction: mostly there is nothing.
        if store::unsealed(&self.store, 1).await?.is_empty() {
            return Ok(0);
        }
        let sealed = in_transaction!(self.store, |tx| -> Result<(usize, Option<BlockRow>)> {
            let last = store::last_block(tx).await?;
            let rows = store::unsealed(&mut *tx, AUDIT_BLOCK_ENTRIES_MAX).await?;
            if rows.is_empty() {
                return Ok((0, None));
            }
            let mut digest = Entries::default();
            rows.iter().for_each(|row| digest.add(&row.entry));
            let (entries, digest) = digest.finish();
            let now = Micros::now();
            let number = last.as_ref().map_or(1, |(number, _)| number + 1);
            let block = Block {
                block: number.unsigned_abs(),
                previous: last.map(|(_, head)| head),
                entries,
                digest,
                iat: now.seconds(),
            };
            let signing = keys.newest_in(tx).await?.signing().clone();
            let signed = tokio::task::spawn_blocking(move || block.sign(&signing)).await;
            let signed = signed.map_err(|e| Error::Internal(e.to_string()))?;
            let (envelope, head) = signed.map_err(|e| Error::Internal(e.to_string()))?;
            let envelope = serde_json::to_string(&envelope).map_err(|e| Error::Internal(e.to_string()))?;
            let entries = i64::try_from(entries).unwrap_or(i64::MAX);
            let row = BlockRow { block_no: number, entries, head, sealed_at: now.0, envelope };
            let ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
            store::insert_block(tx, &row, &ids).await?;
            Ok((ids.len(), Some(row)))
        });
        match sealed {
            Ok((count, Some(block))) => {
                // Who keeps the log elsewhere can prove with it that the trail's end was not cut off.
                tracing::info!(block = block.block_no, head = block.head, "audit head");
                Ok(count)
            }
            Ok((count, None)) => Ok(count),
            // Another controller has taken the lease meanwhile, and its block counts.
            Err(Error::Store(StoreError::Duplicate(_))) => Ok(0),
            Err(error) => Err(error),
        }
    }
}
