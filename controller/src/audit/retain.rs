//! Deleting what is past its retention: whole blocks, with an entry that says which.

use serde_json::json;
use signet_common::time::Micros;

use super::author::Author;
use super::note::{Action, Note, note};
use super::store;
use crate::error::Result;
use crate::limits::{AUDIT_BLOCKS_AT_ONCE, AUDIT_ROWS_DELETED_AT_ONCE};
use crate::store::{Store, in_transaction};

/// Deletes a few blocks that were sealed before `before`; says whether there are more.
pub(super) async fn forget_old(store: &Store, before: Micros) -> Result<bool> {
    let mut blocks = store::blocks(store, 0, AUDIT_BLOCKS_AT_ONCE + 1).await?;
    // The newest stays, however old it is: the next one names it.
    blocks.pop();
    let old = blocks.iter().filter(|block| block.sealed_at < before.0);
    let mut rows = 0;
    // At least one, however large it is.
    let old = old.take_while(|block| {
        rows += block.entries;
        rows <= AUDIT_ROWS_DELETED_AT_ONCE || rows == block.entries
    });
    let Some(last) = old.last() else { return Ok(false) };
    let first = blocks.first().map_or(last.block_no, |block| block.block_no);
    in_transaction!(store, |tx| -> Result<()> {
        store::delete(tx, first..=last.block_no).await?;
        let object = format!("blocks {first} to {}", last.block_no);
        let told =
            Note::of(Action::AuditRetain, &object).new(json!({ "block": last.block_no, "head": last.head }));
        Ok(note(tx, &Author::controller("retention"), told).await?)
    })?;
    Ok(true)
}
