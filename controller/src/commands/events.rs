//! A task's live output and states over server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! The tables are the log, a bell only wakes: subscribe first, read what changed after the watcher's place, wait, read
//! again. An event's id is the task's live sequence up to which everything was told before, so that `Last-Event-ID`
//! resumes without a hole; what was told since is told again, and is the same.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{self, Stream};
use serde_json::json;
use signet_common::TaskId;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio_util::sync::CancellationToken;

use super::model::{TargetView, TaskStatus};
use super::service::Commands;
use super::store::{self, LivePlace};
use crate::error::Result;
use crate::limits::{LIVE_PIECES_MAX, LIVE_POLL_MILLISECONDS, LIVE_TARGETS_MAX};

/// A watcher of one task.
struct Watcher {
    commands: Commands,
    task: TaskId,
    bells: broadcast::Receiver<TaskId>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
    /// Told up to here, among the targets …
    targets: (i64, u64),
    /// … and among the pieces of output.
    pieces: LivePlace,
    /// Everything up to this live sequence was told.
    whole: i64,
    ready: VecDeque<Event>,
    status: Option<TaskStatus>,
    over: bool,
}

/// Watches a task from after this live sequence on.
///
/// # Errors
/// 404 for an unknown task, 429 when too many watch already, and the database's.
pub(super) async fn watch(
    commands: Commands,
    bells: broadcast::Receiver<TaskId>,
    task: TaskId,
    after: i64,
    stop: CancellationToken,
) -> Result<Sse<impl Stream<Item = std::result::Result<Event, Infallible>>>> {
    commands.task(&task).await?;
    let place = commands.watch()?;
    let watcher = Watcher {
        commands,
        task,
        bells,
        stop,
        _place: place,
        targets: (after, u64::from(u32::MAX)),
        pieces: LivePlace { live_seq: after, hostname: "\u{10ffff}".into(), ..LivePlace::default() },
        whole: after,
        ready: VecDeque::new(),
        status: None,
        over: false,
    };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok(event), watcher))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(error) => {
                    // The watcher comes again with its Last-Event-ID.
                    tracing::debug!(%error, task = %self.task, "a live view breaks off");
                    return None;
                }
            }
        }
    }

    /// Waits for a bell of this task; a lost bell costs a moment only.
    async fn wait(&mut self) {
        let timeout = tokio::time::sleep(Duration::from_millis(LIVE_POLL_MILLISECONDS));
        tokio::pin!(timeout);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => {
                    self.over = true;
                    return;
                }
                () = &mut timeout => return,
                bell = self.bells.recv() => match bell {
                    Ok(task) if task != self.task => {}
                    _ => return,
                },
            }
        }
    }

    /// Reads what changed; says whether there was anything.
    async fn read(&mut self) -> Result<bool> {
        let summary = self.commands.summary(&self.task).await?;
        // Before both lists: they are read one after the other, and what comes in between is in one of them alone.
        let live_seq = self.commands.dispatch().live_seq(&self.task).await?;
        let pieces =
            store::live_pieces(self.commands.store(), &self.task, &self.pieces, LIVE_PIECES_MAX).await?;
        let targets = self.commands.dispatch().changed(&self.task, self.targets, LIVE_TARGETS_MAX).await?;
        let cut = [
            (pieces.len() == LIVE_PIECES_MAX).then(|| pieces.last().map_or(0, |p| p.live_seq)),
            (targets.len() == LIVE_TARGETS_MAX).then(|| targets.last().map_or(0, |t| t.live_seq)),
        ];
        // A list that was cut may hold only a part of its last change.
        let whole = match cut.into_iter().flatten().min() {
            Some(seq) => (seq - 1).max(self.whole),
            None => live_seq.max(self.whole),
        };
        let before = self.ready.len();
        for piece in &pieces {
            let data = json!({
                "hostname": piece.hostname, "stream": piece.stream,
                "offset": piece.start_at, "data": STANDARD.encode(&piece.data),
            });
            self.tell("output", &data);
        }
        for target in &targets {
            let view = TargetView::from(target);
            self.tell("state", &view);
        }
        if let Some(last) = pieces.last() {
            self.pieces = LivePlace {
                live_seq: last.live_seq,
                hostname: last.hostname.clone(),
                stream: last.stream.clone(),
                start_at: last.start_at,
            };
        }
        if let Some(last) = targets.last() {
            self.targets = (last.live_seq, last.ordinal);
        }
        self.whole = whole;
        let changed = self.ready.len() > before;
        if self.status != Some(summary.status) {
            self.status = Some(summary.status);
            self.tell("task", &json!({"task_id": self.task, "status": summary.status}));
        }
        let ended = matches!(
            summary.status,
            TaskStatus::Done | TaskStatus::Rejected | TaskStatus::Expired | TaskStatus::Cancelled
        );
        // The status was read first: when nothing more has come since, this is all.
        if ended && !changed {
            self.tell("done", &json!({"task_id": self.task, "status": summary.status}));
            self.over = true;
        }
        Ok(self.ready.len() > before)
    }

    fn tell(&mut self, name: &str, data: &impl serde::Serialize) {
        match Event::default().event(name).id(self.whole.to_string()).json_data(data) {
            Ok(event) => self.ready.push_back(event),
            Err(error) => tracing::error!(%error, "a live event can't be written"),
        }
    }
}
