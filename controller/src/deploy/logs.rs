//! `GET /api/v1/jobs/{job_id}/logs`: as text, or line by line.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;
use utoipa::ToSchema;

use super::model::Job;
use super::service::Jobs;
use super::store;
use crate::error::{Error, Result};
use crate::limits::{JOB_LINE_FRAME_BYTES, JOB_LINES_AT_ONCE, JOB_LINES_PAGE_BYTES_MAX, JOB_LINES_PAGE_MAX};

/// One line.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct LineView {
    /// From 1, without a gap.
    pub id: i64,
    /// When it was written, by the controller's clock.
    pub ts: String,
    /// The host that it is about; null when it is about none or several.
    pub host: Option<String>,
    /// The text, without its end.
    pub line: String,
}

/// Lines, and how to go on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct LinesView {
    /// At most 10,000, and about 4 MiB.
    pub lines: Vec<LineView>,
    /// The `from_id` of the next request.
    pub next_from_id: i64,
    /// Whether the job is over and these are its last lines.
    pub finished: bool,
}

/// The lines behind this one, of a job that was read before: one that is over writes no more.
pub(super) async fn lines(jobs: &Jobs, job: &Job, from_id: i64) -> Result<LinesView> {
    let id = job.id;
    let (mut lines, mut next_from_id, mut bytes) = (Vec::new(), from_id, 0);
    'full: loop {
        let limit = JOB_LINES_AT_ONCE.min(JOB_LINES_PAGE_MAX - lines.len());
        let found = store::lines(jobs.store(), id, next_from_id, limit).await?;
        let last = found.len() < limit || limit == 0;
        for line in found {
            bytes += JOB_LINE_FRAME_BYTES + line.line.len() + line.host.as_ref().map_or(0, String::len);
            if bytes > JOB_LINES_PAGE_BYTES_MAX && !lines.is_empty() {
                break 'full;
            }
            next_from_id = line.id;
            lines.push(LineView { id: line.id, ts: line.at.rfc3339(), host: line.host, line: line.line });
        }
        if last {
            break;
        }
    }
    Ok(LinesView { lines, next_from_id, finished: job.status.is_final() && next_from_id >= job.last_line })
}

/// The whole log as it is now, read and sent a piece at a time.
pub(super) fn text(jobs: &Jobs, id: i64) -> Response {
    let pieces = stream::try_unfold((jobs.clone(), 0_i64), move |(jobs, after)| async move {
        let found = store::lines(jobs.store(), id, after, JOB_LINES_AT_ONCE).await?;
        let Some(last) = found.last().map(|line| line.id) else { return Ok::<_, Error>(None) };
        let text: String = found.into_iter().flat_map(|line| [line.line, "\n".into()]).collect();
        Ok(Some((Bytes::from(text), (jobs, last))))
    });
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Body::from_stream(pieces)).into_response()
}
