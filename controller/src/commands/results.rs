//! `GET /api/tasks/{task_id}/results`: every target in a final state, in order of finishing, streamed.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use signet_common::messages::Stream;
use signet_common::time::Micros;
use signet_common::{Hostname, TaskId};
use utoipa::ToSchema;

use super::service::Commands;
use super::status::{exit_code, stderr_suffix};
use super::store::{self, ResultRow};
use crate::dispatch::Target;
use crate::error::Result;
use crate::limits::{RESULT_CHUNK_BYTES, RESULT_PIECES_AT_ONCE};

/// One result: the document's five fields first, in its order.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ResultView {
    /// The task.
    #[schema(value_type = String)]
    pub task_id: TaskId,
    /// Never null: the process's, 128 + n for signal n, -2 for a time-out, else -1.
    pub exit_code: i64,
    /// What was kept of it; invalid UTF-8 as U+FFFD.
    pub stdout: String,
    /// Likewise; ends with the reason where there is no exit code of the command's own.
    pub stderr: String,
    /// When it ended, by the agent's clock.
    pub timestamp: String,
    /// The host.
    #[schema(value_type = String)]
    pub hostname: Hostname,
    /// How it ended.
    pub state: &'static str,
    /// With `encoding=base64`: the kept bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// With `encoding=base64`: the kept bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// Sizes, digests and what was not kept, in the agent's words.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// What the agent says about the two streams.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Summary {
    /// Bytes that the command wrote.
    pub stdout_bytes: i64,
    /// Offset of the first byte not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_omitted_from: Option<i64>,
    /// Bytes not kept.
    pub stdout_omitted_bytes: i64,
    /// SHA-256 over all that it wrote.
    pub stdout_sha256: String,
    /// Bytes that the command wrote.
    pub stderr_bytes: i64,
    /// Offset of the first byte not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_omitted_from: Option<i64>,
    /// Bytes not kept.
    pub stderr_omitted_bytes: i64,
    /// SHA-256 over all that it wrote.
    pub stderr_sha256: String,
    /// Processes that were left over and killed.
    pub killed: i64,
    /// From start to end.
    pub duration_ms: i64,
}

impl From<&ResultRow> for Summary {
    fn from(row: &ResultRow) -> Self {
        Self {
            stdout_bytes: row.stdout_bytes,
            stdout_omitted_from: row.stdout_omitted_from,
            stdout_omitted_bytes: row.stdout_omitted_bytes,
            stdout_sha256: row.stdout_sha256.clone(),
            stderr_bytes: row.stderr_bytes,
            stderr_omitted_from: row.stderr_omitted_from,
            stderr_omitted_bytes: row.stderr_omitted_bytes,
            stderr_sha256: row.stderr_sha256.clone(),
            killed: row.killed,
            duration_ms: row.duration_ms,
        }
    }
}

/// A reader's place: live sequence and ordinal of the last target.
pub(super) type Place = (i64, u64);

/// Both streams of a host.
type Streams = (Vec<u8>, Vec<u8>);

/// The results of these targets, or of the first of them when their output is large, and the place of the last.
pub(super) async fn of(
    commands: &Commands,
    task: &TaskId,
    mut targets: Vec<Target>,
    base64: bool,
) -> Result<(Vec<ResultView>, Option<Place>)> {
    let mut hosts: Vec<Hostname> = targets.iter().map(|t| t.hostname.clone()).collect();
    if hosts.is_empty() {
        return Ok((Vec::new(), None));
    }
    // Most outputs are small, and one statement reads all of them.
    let (mut pieces, rows) = tokio::try_join!(
        store::small_output(commands.store(), task, &hosts, RESULT_PIECES_AT_ONCE),
        store::results(commands.store(), task, &hosts),
    )?;
    if pieces.len() == RESULT_PIECES_AT_ONCE {
        targets.truncate(fitting(commands, task, &hosts).await?);
        hosts.truncate(targets.len());
        pieces = store::small_output(commands.store(), task, &hosts, usize::MAX).await?;
    }
    let mut outputs: HashMap<String, Streams> = HashMap::new();
    for (host, stream, data) in pieces {
        let (stdout, stderr) = outputs.entry(host).or_default();
        if stream == Stream::Stdout.as_str() { stdout } else { stderr }.extend(data);
    }
    let mut views = Vec::with_capacity(targets.len());
    for target in &targets {
        let (stdout, stderr) = outputs.remove(target.hostname.as_str()).unwrap_or_default();
        let summary = rows.get(target.hostname.as_str()).map(Summary::from);
        views.push(view(task, target, &stdout, &stderr, summary, base64));
    }
    let last = targets.last().and_then(|t| Some((t.final_seq?, t.ordinal)));
    Ok((views, last))
}

/// How many of these hosts, from the first on, fit into one chunk of the answer; always one.
async fn fitting(commands: &Commands, task: &TaskId, hosts: &[Hostname]) -> Result<usize> {
    let sizes = store::sizes(commands.store(), task, hosts).await?;
    let mut bytes = 0;
    let fits = hosts.iter().take_while(|host| {
        bytes += sizes.get(host.as_str()).copied().unwrap_or(0);
        bytes <= RESULT_CHUNK_BYTES
    });
    Ok(fits.count().max(1))
}

fn view(
    task: &TaskId,
    target: &Target,
    stdout: &[u8],
    stderr: &[u8],
    summary: Option<Summary>,
    base64: bool,
) -> ResultView {
    let mut text = String::from_utf8_lossy(stderr).into_owned();
    if let Some(suffix) = stderr_suffix(&target.delivery) {
        let break_line = !text.is_empty() && !text.ends_with('\n') && !suffix.starts_with('\n');
        text.push_str(if break_line { "\n" } else { "" });
        text.push_str(&suffix);
    }
    ResultView {
        task_id: task.clone(),
        exit_code: exit_code(&target.delivery),
        stdout: String::from_utf8_lossy(stdout).into_owned(),
        stderr: text,
        timestamp: target.delivery.finished_at.unwrap_or_else(Micros::now).rfc3339(),
        hostname: target.hostname.clone(),
        state: target.delivery.state.as_str(),
        stdout_base64: base64.then(|| STANDARD.encode(stdout)),
        stderr_base64: base64.then(|| STANDARD.encode(stderr)),
        summary,
    }
}
