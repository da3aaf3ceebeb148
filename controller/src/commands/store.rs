//! The SQL of tasks, results and output. Nobody else reads these tables.

use std::collections::HashMap;

use signet_common::messages::{CommandResult, Stream};
use signet_common::time::Micros;
use signet_common::{Hostname, TaskId};

use super::model::{Options, TargetType, Task};
use crate::limits::BATCH_ROWS_MAX;
use crate::store::{Query, Read, Statement, Store, StoreError, Tx, Value, corrupt, statements};

/// The columns of a task.
macro_rules! task {
    ($rest:literal) => {
        concat!(
            "SELECT task_id, target_type, target, command, options, timeout, user_name, created_at, body_digest \
                FROM tasks ",
            $rest
        )
    };
}

statements! {
    INSERT_TASK = same("INSERT INTO tasks (task_id, account, idempotency_key, body_digest, target_type, target, \
            command, options, timeout, user_name, created_at) VALUES {rows:11}");
    SELECT_TASK = same(task!("WHERE task_id = ?"));
    SELECT_BY_KEY = same(task!("WHERE account = ? AND idempotency_key = ?"));
    LIST_END = same("SELECT created_at, task_id FROM tasks WHERE (created_at < ? OR (created_at = ? AND task_id < ?)) \
            AND created_at >= ? AND (? IS NULL OR target_type = ?) AND (? IS NULL OR target = ?) \
            ORDER BY created_at DESC, task_id DESC LIMIT 2 OFFSET ?");
    LIST = same(task!("WHERE (created_at < ? OR (created_at = ? AND task_id < ?)) AND created_at >= ? \
            AND (? IS NULL OR target_type = ?) AND (? IS NULL OR target = ?) \
            ORDER BY created_at DESC, task_id DESC LIMIT ?"));
    INSERT_RESULTS = differ(
        "INSERT IGNORE INTO results (task_id, hostname, stdout_bytes, stdout_omitted_from, stdout_omitted_bytes, \
                stdout_sha256, stderr_bytes, stderr_omitted_from, stderr_omitted_bytes, stderr_sha256, killed, \
                duration_ms) VALUES {rows:12}",
        "INSERT OR IGNORE INTO results (task_id, hostname, stdout_bytes, stdout_omitted_from, stdout_omitted_bytes, \
                stdout_sha256, stderr_bytes, stderr_omitted_from, stderr_omitted_bytes, stderr_sha256, killed, \
                duration_ms) VALUES {rows:12}",
    );
    INSERT_OUTPUT = differ(
        "INSERT IGNORE INTO output (task_id, hostname, stream, start_at, data, stored_at, live_seq, size) \
                VALUES {rows:8}",
        "INSERT OR IGNORE INTO output (task_id, hostname, stream, start_at, data, stored_at, live_seq, size) \
                VALUES {rows:8}",
    );
    SELECT_RESULTS = same("SELECT hostname, stdout_bytes, stdout_omitted_from, stdout_omitted_bytes, stdout_sha256, \
            stderr_bytes, stderr_omitted_from, stderr_omitted_bytes, stderr_sha256, killed, duration_ms \
            FROM results WHERE task_id = ? AND hostname IN ({list})");
    SELECT_OUTPUT = same("SELECT start_at, data FROM output WHERE task_id = ? AND hostname = ? AND stream = ? \
            AND start_at >= ? ORDER BY start_at LIMIT ?");
    OUTPUT_PIECES = same("SELECT start_at, size FROM output WHERE task_id = ? AND hostname = ? AND stream = ? \
            ORDER BY start_at");
    OUTPUT_SIZES = differ(
        "SELECT hostname, CAST(SUM(size) AS SIGNED) AS number FROM output WHERE task_id = ? AND hostname IN \
                ({list}) GROUP BY hostname",
        "SELECT hostname, SUM(size) AS number FROM output WHERE task_id = ? AND hostname IN ({list}) \
                GROUP BY hostname",
    );
    SMALL_OUTPUT = same("SELECT hostname, stream, data FROM output WHERE task_id = ? AND hostname IN ({list}) \
            ORDER BY hostname, stream, start_at LIMIT ?");
    CHANGED_OUTPUT = same("SELECT hostname, stream, start_at, data, live_seq FROM output WHERE task_id = ? \
            AND (live_seq > ? OR (live_seq = ? AND (hostname > ? OR (hostname = ? AND (stream > ? OR \
            (stream = ? AND start_at > ?)))))) ORDER BY live_seq, hostname, stream, start_at LIMIT ?");
    DELETE_TASKS = same("DELETE FROM tasks WHERE task_id IN ({list})");
    DELETE_RESULTS = same("DELETE FROM results WHERE task_id IN ({list})");
    DELETE_OUTPUT = same("DELETE FROM output WHERE task_id IN ({list})");
    OLD_OUTPUT = same("SELECT task_id, hostname, stream, start_at FROM output WHERE stored_at < ? \
            ORDER BY stored_at LIMIT ?");
    OUTPUT_SIZE = differ(
        "SELECT CAST(COALESCE(SUM(size), 0) AS SIGNED) AS number FROM output",
        "SELECT COALESCE(SUM(size), 0) AS number FROM output",
    );
    OLDEST_OUTPUT = same("SELECT task_id, hostname, stream, start_at FROM output ORDER BY stored_at LIMIT ?");
    DELETE_PIECE = same("DELETE FROM output WHERE task_id = ? AND hostname = ? AND stream = ? AND start_at = ?");
}

#[derive(sqlx::FromRow)]
struct TaskRow {
    task_id: String,
    target_type: String,
    target: Option<String>,
    command: String,
    options: String,
    timeout: i64,
    user_name: Option<String>,
    created_at: i64,
    body_digest: String,
}

impl TryFrom<TaskRow> for (Task, String) {
    type Error = StoreError;
    fn try_from(row: TaskRow) -> Result<Self, StoreError> {
        let task = Task {
            task_id: row.task_id.parse().map_err(corrupt)?,
            target_type: TargetType::parse(&row.target_type).ok_or_else(|| corrupt("target_type"))?,
            target: row.target,
            command: row.command,
            timeout: u32::try_from(row.timeout).map_err(corrupt)?,
            user: row.user_name,
            created_at: Micros(row.created_at),
            options: serde_json::from_str::<Options>(&row.options).map_err(corrupt)?,
        };
        Ok((task, row.body_digest))
    }
}

/// Who asked, and how a repetition is recognised.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) account: String,
    pub(super) idempotency_key: Option<String>,
    pub(super) body_digest: String,
}

/// Writes a task. [`StoreError::Duplicate`] when the account used its idempotency key before: on MySQL this waits
/// for a concurrent request's commit.
pub(super) async fn insert(tx: &mut Tx, task: &Task, origin: &Origin) -> Result<(), StoreError> {
    let options = serde_json::to_string(&task.options).map_err(corrupt)?;
    let row: [Value; 11] = [
        (&task.task_id).into(),
        origin.account.as_str().into(),
        origin.idempotency_key.as_deref().into(),
        origin.body_digest.as_str().into(),
        task.target_type.as_str().into(),
        task.target.as_deref().into(),
        task.command.as_str().into(),
        options.into(),
        task.timeout.into(),
        task.user.as_deref().into(),
        task.created_at.into(),
    ];
    tx.run(INSERT_TASK.query().rows([row])).await.map(drop)
}

/// The task that an account made with this key, and the digest of the body it came with.
pub(super) async fn by_key(
    store: &Store,
    account: &str,
    key: &str,
) -> Result<Option<(Task, String)>, StoreError> {
    store.first::<TaskRow>(SELECT_BY_KEY.bind(account).bind(key)).await?.map(TryInto::try_into).transpose()
}

/// One task.
pub(super) async fn one(mut read: impl Read, task: &TaskId) -> Result<Option<Task>, StoreError> {
    let row: Option<TaskRow> = read.first(SELECT_TASK.bind(task)).await?;
    Ok(row.map(<(Task, String)>::try_from).transpose()?.map(|(task, _)| task))
}

/// What a list of tasks is narrowed to.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) target_type: Option<TargetType>,
    pub(super) target: Option<String>,
    pub(super) since: Option<Micros>,
}

/// A reader's place among the tasks: when the last one was made, and its id.
pub(super) type Place = (i64, String);

fn narrowed(statement: Statement, filter: &Filter, before: &Place) -> Query {
    let kind = filter.target_type.map(TargetType::as_str);
    let target = filter.target.as_deref();
    let query = statement.bind(before.0).bind(before.0).bind(before.1.as_str());
    let query = query.bind(filter.since.unwrap_or(Micros(0)));
    query.bind(kind).bind(kind).bind(target).bind(target)
}

/// Tasks from before this place, newest first.
pub(super) async fn list(
    store: &Store,
    filter: &Filter,
    before: &Place,
    limit: usize,
) -> Result<Vec<Task>, StoreError> {
    let rows: Vec<TaskRow> = store.all(narrowed(LIST, filter, before).bind(limit as u64)).await?;
    rows.into_iter().map(|r| <(Task, String)>::try_from(r).map(|(task, _)| task)).collect()
}

/// The place of the last task of a page, if there are more behind it.
pub(super) async fn list_end(
    store: &Store,
    filter: &Filter,
    before: &Place,
    limit: usize,
) -> Result<Option<Place>, StoreError> {
    let offset = limit.saturating_sub(1) as u64;
    let rows: Vec<Place> = store.all(narrowed(LIST_END, filter, before).bind(offset)).await?;
    Ok(if rows.len() > 1 { rows.into_iter().next() } else { None })
}

/// How one command ended, beyond its delivery.
pub(super) struct NewResult<'a> {
    pub(super) task_id: &'a TaskId,
    pub(super) hostname: &'a Hostname,
    pub(super) result: &'a CommandResult,
}

/// Writes results; those that are there already stay, because an agent has one end for each command.
pub(super) async fn put_results(tx: &mut Tx, results: &[NewResult<'_>]) -> Result<(), StoreError> {
    for some in results.chunks(BATCH_ROWS_MAX) {
        let rows = some.iter().map(|r| -> [Value; 12] {
            let (out, err) = (&r.result.stdout_summary, &r.result.stderr_summary);
            [
                r.task_id.into(),
                r.hostname.into(),
                out.bytes.into(),
                out.omitted_from.into(),
                out.omitted_bytes.into(),
                digest(&out.sha256).into(),
                err.bytes.into(),
                err.omitted_from.into(),
                err.omitted_bytes.into(),
                digest(&err.sha256).into(),
                r.result.killed.into(),
                r.result.duration_ms.into(),
            ]
        });
        tx.run(INSERT_RESULTS.query().rows(rows)).await?;
    }
    Ok(())
}

/// An agent's text in a column of 64 characters.
fn digest(text: &str) -> &str {
    if text.len() <= 64 { text } else { "" }
}

/// A piece of output.
pub(super) struct Piece<'a> {
    pub(super) task_id: &'a TaskId,
    pub(super) hostname: &'a Hostname,
    pub(super) stream: Stream,
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
    pub(super) live_seq: i64,
}

/// Writes pieces of output; those that are there already stay.
pub(super) async fn put_output(tx: &mut Tx, pieces: &[Piece<'_>], now: Micros) -> Result<(), StoreError> {
    let mut rest = pieces;
    while !rest.is_empty() {
        // As many as stay below 1 MiB in one statement: MySQL's max_allowed_packet may be 4 MiB.
        let mut bytes = 0;
        let count = rest
            .iter()
            .take(BATCH_ROWS_MAX)
            .take_while(|p| {
                bytes += p.data.len();
                bytes <= 1024 * 1024
            })
            .count()
            .max(1);
        let (some, others) = rest.split_at(count);
        let rows = some.iter().map(|p| -> [Value; 8] {
            [
                p.task_id.into(),
                p.hostname.into(),
                p.stream.as_str().into(),
                p.offset.into(),
                p.data.into(),
                now.into(),
                p.live_seq.into(),
                (p.data.len() as u64).into(),
            ]
        });
        tx.run(INSERT_OUTPUT.query().rows(rows)).await?;
        rest = others;
    }
    Ok(())
}

/// What is known of a command's two streams.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct ResultRow {
    pub(super) hostname: String,
    pub(super) stdout_bytes: i64,
    pub(super) stdout_omitted_from: Option<i64>,
    pub(super) stdout_omitted_bytes: i64,
    pub(super) stdout_sha256: String,
    pub(super) stderr_bytes: i64,
    pub(super) stderr_omitted_from: Option<i64>,
    pub(super) stderr_omitted_bytes: i64,
    pub(super) stderr_sha256: String,
    pub(super) killed: i64,
    pub(super) duration_ms: i64,
}

/// Results of these hosts.
pub(super) async fn results(
    store: &Store,
    task: &TaskId,
    hosts: &[Hostname],
) -> Result<HashMap<String, ResultRow>, StoreError> {
    let rows: Vec<ResultRow> = store.all(SELECT_RESULTS.bind(task).list(hosts)).await?;
    Ok(rows.into_iter().map(|r| (r.hostname.clone(), r)).collect())
}

/// A stored piece: where it begins, and its bytes.
pub(super) type StoredPiece = (i64, Vec<u8>);

/// Pieces from this offset on.
pub(super) async fn pieces(
    store: &Store,
    task: &TaskId,
    host: &Hostname,
    stream: Stream,
    from: i64,
    limit: usize,
) -> Result<Vec<StoredPiece>, StoreError> {
    let query = SELECT_OUTPUT.bind(task).bind(host).bind(stream.as_str()).bind(from).bind(limit as u64);
    store.all(query).await
}

/// Where each kept piece begins and how long it is.
pub(super) async fn layout(
    store: &Store,
    task: &TaskId,
    host: &Hostname,
    stream: Stream,
) -> Result<Vec<(i64, i64)>, StoreError> {
    store.all(OUTPUT_PIECES.bind(task).bind(host).bind(stream.as_str())).await
}

/// Output of several hosts in order, at most `limit` pieces.
pub(super) async fn small_output(
    store: &Store,
    task: &TaskId,
    hosts: &[Hostname],
    limit: usize,
) -> Result<Vec<(String, String, Vec<u8>)>, StoreError> {
    store.all(SMALL_OUTPUT.bind(task).list(hosts).bind(limit as u64)).await
}

/// Bytes of output that are kept of each of these hosts that has any.
pub(super) async fn sizes(
    store: &Store,
    task: &TaskId,
    hosts: &[Hostname],
) -> Result<HashMap<String, u64>, StoreError> {
    let rows: Vec<(String, i64)> = store.all(OUTPUT_SIZES.bind(task).list(hosts)).await?;
    Ok(rows.into_iter().map(|(host, size)| (host, size.unsigned_abs())).collect())
}

/// A piece as a watcher gets it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct LivePiece {
    pub(super) hostname: String,
    pub(super) stream: String,
    pub(super) start_at: i64,
    pub(super) data: Vec<u8>,
    pub(super) live_seq: i64,
}

/// A watcher's place among a task's pieces: live sequence, host, stream, offset.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LivePlace {
    pub(super) live_seq: i64,
    pub(super) hostname: String,
    pub(super) stream: String,
    pub(super) start_at: i64,
}

/// Pieces after this place.
pub(super) async fn live_pieces(
    store: &Store,
    task: &TaskId,
    after: &LivePlace,
    limit: usize,
) -> Result<Vec<LivePiece>, StoreError> {
    let (host, stream) = (after.hostname.as_str(), after.stream.as_str());
    let query = CHANGED_OUTPUT.bind(task).bind(after.live_seq).bind(after.live_seq);
    let query = query.bind(host).bind(host).bind(stream).bind(stream).bind(after.start_at).bind(limit as u64);
    store.all(query).await
}

/// Forgets tasks.
pub(super) async fn delete(tx: &mut Tx, tasks: &[TaskId]) -> Result<(), StoreError> {
    for statement in [DELETE_OUTPUT, DELETE_RESULTS, DELETE_TASKS] {
        tx.run(statement.query().list(tasks)).await?;
    }
    Ok(())
}

async fn delete_pieces(store: &Store, query: Query) -> Result<usize, StoreError> {
    let rows: Vec<(String, String, String, i64)> = store.all(query).await?;
    let mut tx = store.begin().await?;
    let piece: Statement = DELETE_PIECE;
    for (task, host, stream, at) in &rows {
        tx.run(piece.bind(task.as_str()).bind(host.as_str()).bind(stream.as_str()).bind(*at)).await?;
    }
    tx.commit().await?;
    Ok(rows.len())
}

/// Deletes some output that was stored before `before`; says how many pieces.
pub(super) async fn delete_old_output(
    store: &Store,
    before: Micros,
    limit: usize,
) -> Result<usize, StoreError> {
    delete_pieces(store, OLD_OUTPUT.bind(before).bind(limit as u64)).await
}

/// Deletes some of the oldest output; says how many pieces.
pub(super) async fn delete_oldest_output(store: &Store, limit: usize) -> Result<usize, StoreError> {
    delete_pieces(store, OLDEST_OUTPUT.bind(limit as u64)).await
}

/// Bytes of output that are kept.
pub(super) async fn output_size(store: &Store) -> Result<u64, StoreError> {
    let row: Option<(i64,)> = store.first(OUTPUT_SIZE.query()).await?;
    Ok(row.map_or(0, |(n,)| n.unsigned_abs()))
}
