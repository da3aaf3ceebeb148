//! The lines of jobs' logs.

use signet_common::time::Micros;

use super::{CUT, INSERT_LINES, LAST_LINE, LINES, LOCK_JOB, LOG_SIZE};
use crate::limits::{BATCH_ROWS_MAX, JOB_LINES_MAX, JOB_LOG_BYTES_MAX, JOB_WORDS_MAX};
use crate::store::{Store, StoreError, Tx, Value};

/// A line that is to be added to a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::deploy) struct NewLine {
    pub(in crate::deploy) at: Micros,
    pub(in crate::deploy) host: Option<String>,
    /// Printable, without its end.
    pub(in crate::deploy) line: String,
}

/// A line of now.
pub(in crate::deploy) fn line(host: Option<&str>, line: String) -> NewLine {
    NewLine { at: Micros::now(), host: host.map(str::to_owned), line }
}

impl NewLine {
    /// Of its text.
    const fn bytes(&self) -> u64 {
        self.line.len() as u64
    }
}

/// A line of which a log keeps as many as it has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::deploy) enum Kept {
    /// What a program wrote.
    Output(NewLine),
    /// How a host ended: it is said even in a log that is full.
    Word(NewLine),
}

/// Holds the job's row until the end of the transaction, and gives those of the lines that its log has room for. The first
/// time that one is left out, a line says so, and from then on only words are kept.
pub(in crate::deploy) async fn fitting(
    tx: &mut Tx,
    job: i64,
    lines: Vec<Kept>,
) -> Result<Vec<NewLine>, StoreError> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    lock(tx, job, &[]).await?;
    let row: Option<(i64, i64, i64)> = tx.first(LOG_SIZE.bind(job)).await?;
    let (mut last, bytes, told) = row.unwrap_or_default();
    let mut bytes = bytes.unsigned_abs();
    let mut cut = told != 0;
    let mut fitting = Vec::new();
    for line in lines {
        let (line, fits) = match line {
            Kept::Output(line) => {
                let fits = !cut && last < JOB_LINES_MAX && bytes + line.bytes() <= JOB_LOG_BYTES_MAX;
                (line, fits)
            }
            Kept::Word(line) => (line, last < JOB_LINES_MAX + JOB_WORDS_MAX),
        };
        let line = if fits {
            line
        } else if std::mem::replace(&mut cut, true) {
            continue;
        } else {
            let mib = JOB_LOG_BYTES_MAX / (1024 * 1024);
            let text = format!("(more than {JOB_LINES_MAX} lines or {mib} MiB: the rest is not kept)");
            NewLine { host: None, line: text, ..line }
        };
        last += 1;
        bytes += line.bytes();
        fitting.push(line);
    }
    if cut && told == 0 {
        tx.run(CUT.bind(job)).await?;
    }
    Ok(fitting)
}

/// Holds the job's row until the end of the transaction, and adds lines to its log.
pub(in crate::deploy) async fn lock(tx: &mut Tx, job: i64, lines: &[NewLine]) -> Result<(), StoreError> {
    let bytes: u64 = lines.iter().map(NewLine::bytes).sum();
    tx.run(LOCK_JOB.bind(lines.len() as u64).bind(bytes).bind(job)).await?;
    if lines.is_empty() {
        return Ok(());
    }
    let row: Option<(i64,)> = tx.first(LAST_LINE.bind(job)).await?;
    let Some((last,)) = row else { return Ok(()) };
    let mut id = last - i64::try_from(lines.len()).unwrap_or(i64::MAX);
    for some in lines.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<[Value; 5]> = some
            .iter()
            .map(|line| {
                id += 1;
                [
                    job.into(),
                    id.into(),
                    line.at.into(),
                    line.host.as_deref().into(),
                    line.line.as_bytes().into(),
                ]
            })
            .collect();
        tx.run(INSERT_LINES.query().rows(rows)).await?;
    }
    Ok(())
}

/// A stored line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::deploy) struct Line {
    pub(in crate::deploy) id: i64,
    pub(in crate::deploy) at: Micros,
    pub(in crate::deploy) host: Option<String>,
    pub(in crate::deploy) line: String,
}

pub(in crate::deploy) async fn lines(
    store: &Store,
    job: i64,
    after: i64,
    limit: usize,
) -> Result<Vec<Line>, StoreError> {
    let rows: Vec<(i64, i64, Option<String>, Vec<u8>)> =
        store.all(LINES.bind(job).bind(after).bind(limit as u64)).await?;
    let line = |(id, at, host, line): (i64, i64, Option<String>, Vec<u8>)| Line {
        id,
        at: Micros(at),
        host,
        line: String::from_utf8_lossy(&line).into_owned(),
    };
    Ok(rows.into_iter().map(line).collect())
}
