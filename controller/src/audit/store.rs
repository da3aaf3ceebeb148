//! The trail's SQL.

use serde::Deserialize;
use signet_common::time::Micros;

use super::note::Row;
use crate::limits::AUDIT_ROWS_AT_ONCE;
use crate::store::{Query, Read, Store, StoreError, Tx, Value, statements};

statements! {
    INSERT = same("INSERT INTO audit_entries (id, at, who, action, object, result, entry) VALUES {rows:7}");
    LAST_BLOCK = differ(
        "SELECT block_no, head FROM audit_blocks ORDER BY block_no DESC LIMIT 1 FOR UPDATE",
        "SELECT block_no, head FROM audit_blocks ORDER BY block_no DESC LIMIT 1",
    );
    HEAD = same("SELECT block_no, head, sealed_at FROM audit_blocks ORDER BY block_no DESC LIMIT 1");
    UNSEALED = same("SELECT id, at, who, action, object, result, entry, block_no FROM audit_entries WHERE block_no IS NULL ORDER BY at, id LIMIT ?");
    COUNT_UNSEALED = same("SELECT COUNT(*) FROM audit_entries WHERE block_no IS NULL");
    INSERT_BLOCK = same(
        "INSERT INTO audit_blocks (block_no, entries, head, sealed_at, envelope) VALUES (?, ?, ?, ?, ?)");
    SEAL = differ(
        "UPDATE audit_entries FORCE INDEX (PRIMARY) SET block_no = ? WHERE block_no IS NULL AND id IN ({list})",
        "UPDATE audit_entries SET block_no = ? WHERE block_no IS NULL AND id IN ({list})",
    );
    BLOCKS = same("SELECT block_no, entries, head, sealed_at, envelope FROM audit_blocks WHERE block_no >= ?
        ORDER BY block_no LIMIT ?");
    ENTRIES = same("SELECT id, at, who, action, object, result, entry, block_no FROM audit_entries WHERE block_no >= ? AND block_no <= ?
        ORDER BY block_no, at, id LIMIT ?");
    LIST = same("SELECT id, at, who, action, object, result, entry, block_no FROM audit_entries
        WHERE (at < ? OR (at = ? AND id < ?)) AND at >= ? AND (? IS NULL OR who = ?) AND (? IS NULL OR action = ?)
        AND (? IS NULL OR object = ?) AND (? IS NULL OR result = ?) ORDER BY at DESC, id DESC LIMIT ?");
    LIST_END = same("SELECT at, id FROM audit_entries
        WHERE (at < ? OR (at = ? AND id < ?)) AND at >= ? AND (? IS NULL OR who = ?) AND (? IS NULL OR action = ?)
        AND (? IS NULL OR object = ?) AND (? IS NULL OR result = ?) ORDER BY at DESC, id DESC LIMIT 2 OFFSET ?");
    DELETE_ENTRIES = same("DELETE FROM audit_entries WHERE block_no >= ? AND block_no <= ?");
    DELETE_BLOCKS = same("DELETE FROM audit_blocks WHERE block_no <= ?");
}

/// Writes entries.
pub(super) async fn insert(tx: &mut Tx, rows: &[Row]) -> Result<(), StoreError> {
    let values = |row: &Row| -> [Value; 7] {
        [
            row.id.to_string().into(),
            row.at.into(),
            row.who.as_str().into(),
            row.action.into(),
            row.object.as_str().into(),
            row.result.as_str().into(),
            row.entry.as_str().into(),
        ]
    };
    for rows in rows.chunks(AUDIT_ROWS_AT_ONCE) {
        tx.run(INSERT.query().rows(rows.iter().map(values))).await?;
    }
    Ok(())
}

/// The last block's number and digest, held until the transaction ends.
pub(super) async fn last_block(tx: &mut Tx) -> Result<Option<(i64, String)>, StoreError> {
    tx.first(LAST_BLOCK.query()).await
}

/// The last block's number and digest, and when it was sealed.
pub(super) async fn head(store: &Store) -> Result<Option<(i64, String, i64)>, StoreError> {
    store.first(HEAD.query()).await
}

/// The oldest entries without a block, in the order in which they are sealed.
pub(super) async fn unsealed(mut read: impl Read, limit: usize) -> Result<Vec<EntryRow>, StoreError> {
    read.all(UNSEALED.bind(limit as u64)).await
}

pub(super) async fn count_unsealed(store: &Store) -> Result<i64, StoreError> {
    let row: Option<(i64,)> = store.first(COUNT_UNSEALED.query()).await?;
    Ok(row.map_or(0, |(count,)| count))
}

/// A block as it is stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct BlockRow {
    pub(super) block_no: i64,
    pub(super) entries: i64,
    pub(super) head: String,
    pub(super) sealed_at: i64,
    pub(super) envelope: String,
}

pub(super) async fn insert_block(tx: &mut Tx, block: &BlockRow, ids: &[String]) -> Result<(), StoreError> {
    let query = INSERT_BLOCK.bind(block.block_no).bind(block.entries).bind(block.head.as_str());
    tx.run(query.bind(block.sealed_at).bind(block.envelope.as_str())).await?;
    for ids in ids.chunks(AUDIT_ROWS_AT_ONCE) {
        let sealed = tx.run(SEAL.bind(block.block_no).list(ids.iter().map(String::as_str))).await?;
        if sealed != ids.len() as u64 {
            return Err(StoreError::Conflict("another controller sealed these entries".into()));
        }
    }
    Ok(())
}

pub(super) async fn blocks(store: &Store, from: i64, limit: usize) -> Result<Vec<BlockRow>, StoreError> {
    store.all(BLOCKS.bind(from).bind(limit as u64)).await
}

/// The entries of these blocks, in order.
pub(super) async fn entries(
    store: &Store,
    blocks: std::ops::RangeInclusive<i64>,
    limit: usize,
) -> Result<Vec<EntryRow>, StoreError> {
    store.all(ENTRIES.bind(*blocks.start()).bind(*blocks.end()).bind(limit as u64)).await
}

/// What a reader looks for; what is absent does not matter.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) since: Option<Micros>,
    pub(super) who: Option<String>,
    pub(super) action: Option<String>,
    pub(super) object: Option<String>,
    pub(super) result: Option<String>,
}

/// An entry, and where it stands.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct EntryRow {
    pub(super) id: String,
    pub(super) at: i64,
    who: String,
    action: String,
    object: String,
    result: String,
    pub(super) entry: String,
    pub(super) block_no: Option<i64>,
}

/// What of an entry stands in columns of its own, too.
#[derive(Deserialize)]
struct Columns {
    id: String,
    at: String,
    who: String,
    action: String,
    object: String,
    result: String,
}

impl EntryRow {
    /// Whether the columns by which it is found say what the entry says: only that is sealed.
    pub(super) fn is_found_by_what_it_says(&self) -> bool {
        serde_json::from_str::<Columns>(&self.entry).is_ok_and(|said| {
            Micros::parse_rfc3339(&said.at) == Some(Micros(self.at))
                && [said.id, said.who, said.action, said.object, said.result]
                    == [&*self.id, &*self.who, &*self.action, &*self.object, &*self.result]
        })
    }
}

/// Entries before this time and id, newest first.
pub(super) async fn list(
    store: &Store,
    filter: &Filter,
    (at, id): &(i64, String),
    limit: usize,
) -> Result<Vec<EntryRow>, StoreError> {
    store.all(filtered(LIST.bind(*at).bind(*at).bind(id.as_str()), filter).bind(limit as u64)).await
}

/// The last of a page of entries, if there are more behind it.
pub(super) async fn list_end(
    store: &Store,
    filter: &Filter,
    (at, id): &(i64, String),
    limit: usize,
) -> Result<Option<(i64, String)>, StoreError> {
    let query = filtered(LIST_END.bind(*at).bind(*at).bind(id.as_str()), filter);
    let rows: Vec<(i64, String)> = store.all(query.bind(limit.saturating_sub(1) as u64)).await?;
    Ok(if rows.len() > 1 { rows.into_iter().next() } else { None })
}

fn filtered(query: Query, filter: &Filter) -> Query {
    let query = query.bind(filter.since.map_or(i64::MIN, |at| at.0));
    let wanted = [&filter.who, &filter.action, &filter.object, &filter.result];
    wanted.into_iter().fold(query, |query, wanted| query.bind(wanted.clone()).bind(wanted.clone()))
}

/// Deletes the blocks up to this one, with their entries.
pub(super) async fn delete(tx: &mut Tx, blocks: std::ops::RangeInclusive<i64>) -> Result<(), StoreError> {
    tx.run(DELETE_ENTRIES.bind(*blocks.start()).bind(*blocks.end())).await?;
    tx.run(DELETE_BLOCKS.bind(*blocks.end())).await.map(drop)
}
