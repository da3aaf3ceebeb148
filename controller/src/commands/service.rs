//! What commands do: ask for one, look at it, cancel it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::json;
use signet_common::envelope::PayloadType;
use signet_common::fault::{self, Point};
use signet_common::messages::Command;
use signet_common::statement;
use signet_common::time::Micros;
use signet_common::{Hostname, Jti, TaskId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::model::{TargetType, TargetView, Task, TaskDetail, TaskStatus, TaskView};
use super::request::{Checked, unknown_node};
use super::status::{Sending, status};
use super::store::{self, Filter, Origin, Place};
use crate::accounts::within;
use crate::approvals::{Approvals, Asked, Work};
use crate::audit::{self, Action, Author, Note};
use crate::dispatch::model::State;
use crate::dispatch::{
    self, Audience, Body, Dispatch, Kind, MessageClaims, Order, Rolling, Sent, Tallies, Target,
};
use crate::error::{Error, Result};
use crate::hosts::{self, Hosts};
use crate::limits::{
    BUNDLE_RETRY_SECONDS, BUNDLES_AT_ONCE, OUTPUT_DELETE_PIECES_MAX, TARGETS_SHOWN_MAX, WATCHERS_MAX,
    WATCHERS_RETRY_SECONDS,
};
use crate::store::{Read, Store, StoreError, Tx, in_transaction};

/// Commands. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commands {
    store: Store,
    hosts: Hosts,
    dispatch: Dispatch,
    approvals: Approvals,
    watchers: Arc<Semaphore>,
    bundles: Arc<Semaphore>,
}

/// How a request asks to be recognised when it comes again.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// The account.
    pub account: String,
    /// The `Idempotency-Key` header.
    pub key: Option<String>,
    /// SHA-256 of the body in hex.
    pub digest: String,
}

/// The groups of hosts that somebody may make do something; none = all.
pub(super) type Groups = BTreeSet<String>;

impl Commands {
    /// Commands over these parts.
    #[must_use]
    pub fn new(store: Store, hosts: Hosts, dispatch: Dispatch, approvals: Approvals) -> Self {
        Self {
            store,
            hosts,
            dispatch,
            approvals,
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            bundles: Arc::new(Semaphore::new(BUNDLES_AT_ONCE)),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Room for one more live view, until it is dropped.
    pub(super) fn watch(&self) -> Result<OwnedSemaphorePermit> {
        let room = self.watchers.clone().try_acquire_owned();
        room.map_err(|_| Error::TooManyRequests(WATCHERS_RETRY_SECONDS))
    }

    /// Room for one more bundle, until it is dropped.
    pub(super) fn bundling(&self) -> Result<OwnedSemaphorePermit> {
        let room = self.bundles.clone().try_acquire_owned();
        room.map_err(|_| Error::TooManyRequests(BUNDLE_RETRY_SECONDS))
    }

    pub(super) fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    /// Asks for a command on every host that matches now: task, messages and deliveries in one transaction, published
    /// after its commit. The same key and body: the same task.
    ///
    /// # Errors
    /// 404 when the target names no host, 403 when one is not in `groups`, 400 when the key came with another body, and
    /// the database's.
    pub async fn ask(
        &self,
        by: &Author,
        request: Checked,
        repeat: Repeat,
        groups: Option<&Groups>,
    ) -> Result<TaskView> {
        if let Some(task) = self.repeated(&repeat).await? {
            return self.view(task).await;
        }
        let task = Task {
            task_id: TaskId::generate(),
            target_type: request.target_type,
            target: request.target_text.clone(),
            command: request.shown.clone(),
            timeout: request.timeout,
            user: request.user.clone(),
            created_at: Micros::now(),
            options: request.options.clone(),
        };
        let origin = Origin {
            account: repeat.account.clone(),
            idempotency_key: repeat.key.clone(),
            body_digest: repeat.digest.clone(),
        };
        let (task, request) = (Arc::new(task), Arc::new(request));
        let body = body(&task, &request);
        let asked = in_transaction!(self.store, |tx| -> Result<(Sent, bool)> {
            // First, because only a name that names something is sure to fit into its column.
            let candidates = self.hosts.candidates(tx, &request.target).await?;
            if candidates.is_empty() {
                return Err(nobody(&request.target));
            }
            within(groups, candidates.iter().map(|host| &host.group))?;
            store::insert(tx, &task, &origin).await?;
            // After the servers are held: a host that begins a new log refuses what was issued before it.
            let now = Micros::now();
            let order = Order {
                task_id: &task.task_id,
                kind: Kind::Command,
                payload_type: PayloadType::Command,
                now,
                timeout: request.timeout,
                expires_in: request.expires_in,
                rolling: Rolling {
                    batch: request.batch,
                    max_failures: request.options.max_failures,
                    ..Rolling::default()
                },
                candidates: &candidates,
                audience: Audience::Shared,
                secret: !request.env.is_empty() || request.stdin.is_some(),
                features: &features(&request),
                body: &body,
                drafts: None,
            };
            let sent = self.send_or_hold(tx, &repeat.account, &task, &request, &order).await?;
            audit::note(tx, by, asked_for(&task, candidates.len(), sent.1)).await?;
            fault::hit(Point::ControllerBeforeCommit);
            Ok(sent)
        });
        match asked {
            Ok((sent, held)) => {
                fault::hit(Point::ControllerAfterCommit);
                let status = status(&sent.tally, Sending::of(held, sent.can_send));
                self.dispatch.committed(sent);
                let approval = if held { self.approvals.of(&self.store, &task.task_id).await? } else { None };
                Ok(TaskView { approval, ..Arc::unwrap_or_clone(task).view(status) })
            }
            // Another request with the same key was quicker.
            Err(Error::Store(StoreError::Duplicate(_))) => match self.repeated(&repeat).await? {
                Some(first) => self.view(first).await,
                None => Err(Error::Internal("a task exists that can't be found".into())),
            },
            Err(error) => Err(error),
        }
    }

    /// Sends it, or holds it for the approval of others; says whether it is held.
    async fn send_or_hold(
        &self,
        tx: &mut Tx,
        requester: &str,
        task: &Task,
        request: &Checked,
        order: &Order<'_>,
    ) -> Result<(Sent, bool)> {
        let all = request.target_type == TargetType::All;
        match self.approvals.needed(tx, statement::Kind::Command, all, order.candidates).await? {
            None => Ok((self.dispatch.send(tx, order).await?, false)),
            Some(need) => {
                let claims = MessageClaims { aud: Vec::new(), iat: 0, exp: 0, jti: Jti::generate() };
                let command = message(task, request, &claims);
                let work = Work::Command(&command);
                self.approvals.hold(tx, &Asked { requester, need, order, work }).await
            }
        }
    }

    async fn repeated(&self, repeat: &Repeat) -> Result<Option<Task>> {
        let Some(key) = &repeat.key else { return Ok(None) };
        match store::by_key(&self.store, &repeat.account, key).await? {
            Some((_, digest)) if digest != repeat.digest => {
                Err(Error::invalid("Idempotency-Key", "Idempotency-Key was used before with another body"))
            }
            found => Ok(found.map(|(task, _)| task)),
        }
    }

    async fn view(&self, task: Task) -> Result<TaskView> {
        let can_send = self.can_send().await?;
        let mut read = self.store.snapshot().await?;
        let standing = standing(&mut read, can_send, std::slice::from_ref(&task.task_id)).await?;
        let status = standing.status(&task.task_id);
        let awaits = status == TaskStatus::AwaitingApproval;
        let approval = if awaits { self.approvals.of(&mut read, &task.task_id).await? } else { None };
        read.end().await?;
        Ok(TaskView { approval, ..task.view(status) })
    }

    /// Whether what is asked for now is sent at once: the bus is up and dispatch not paused.
    pub(super) async fn can_send(&self) -> Result<bool> {
        Ok(self.dispatch.may_publish() && self.dispatch.held().await?.is_none())
    }

    /// Where a page of the list ends, if there are more tasks behind it.
    pub(super) async fn list_end(
        &self,
        filter: &Filter,
        before: &Place,
        limit: usize,
    ) -> Result<Option<Place>> {
        Ok(store::list_end(&self.store, filter, before, limit).await?)
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        before: &Place,
        limit: usize,
    ) -> Result<Vec<(TaskView, Place)>> {
        let tasks = store::list(&self.store, filter, before, limit).await?;
        let ids: Vec<TaskId> = tasks.iter().map(|t| t.task_id.clone()).collect();
        let can_send = self.can_send().await?;
        let standing = standing(&self.store, can_send, &ids).await?;
        let placed = |task: Task| {
            let place = (task.created_at.0, task.task_id.to_string());
            let status = standing.status(&task.task_id);
            (task.view(status), place)
        };
        Ok(tasks.into_iter().map(placed).collect())
    }

    /// The task, or 404.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the database's.
    pub async fn task(&self, id: &TaskId) -> Result<Task> {
        store::one(&self.store, id).await?.ok_or_else(unknown)
    }

    /// The task with its status.
    ///
    /// # Errors
    /// As [`Commands::task`].
    pub async fn summary(&self, id: &TaskId) -> Result<TaskView> {
        let task = self.task(id).await?;
        self.view(task).await
    }

    /// The task with its hosts.
    ///
    /// # Errors
    /// As [`Commands::task`].
    pub async fn detail(&self, id: &TaskId) -> Result<TaskDetail> {
        let (can_send, paused) = (self.can_send().await?, self.dispatch.held().await?);
        let mut read = self.store.snapshot().await?;
        let task = store::one(&mut read, id).await?.ok_or_else(unknown)?;
        let standing = standing(&mut read, can_send, std::slice::from_ref(id)).await?;
        let targets = dispatch::targets(&mut read, id, 0, TARGETS_SHOWN_MAX).await?;
        let approval = self.approvals.of(&mut read, id).await?;
        read.end().await?;
        let mut counts = BTreeMap::new();
        for (state, number) in standing.tallies.get(id).into_iter().flatten() {
            *counts.entry(state.as_str()).or_insert(0) += number;
        }
        let status = standing.status(id);
        Ok(TaskDetail {
            task: TaskView { approval, ..task.view(status) },
            paused,
            counts,
            targets: targets.iter().map(TargetView::from).collect(),
        })
    }

    /// Cancels what is open of the task.
    ///
    /// # Errors
    /// As [`Commands::task`], and 403 when one of its hosts is not in `groups`.
    pub async fn cancel(&self, by: &Author, id: &TaskId, groups: Option<&Groups>) -> Result<TaskDetail> {
        self.task(id).await?;
        if groups.is_some() {
            let mut after = 0;
            loop {
                let some = dispatch::targets(&self.store, id, after, TARGETS_SHOWN_MAX).await?;
                let Some(last) = some.last() else { break };
                after = last.ordinal;
                let names: Vec<Hostname> = some.into_iter().map(|target| target.hostname).collect();
                within(groups, &self.hosts.groups_of(&names).await?)?;
            }
        }
        self.dispatch.cancel(by, id).await?;
        self.detail(id).await
    }

    /// One host of the task, or 404.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the database's.
    pub async fn target(&self, id: &TaskId, host: &Hostname) -> Result<Target> {
        self.task(id).await?;
        let found = self.dispatch.target(id, host).await?;
        found.ok_or_else(|| Error::NotFound("Target not found".into()))
    }

    /// Deletes a bounded amount of output that is past its retention or above the cap; says whether there is more.
    ///
    /// # Errors
    /// The database's.
    pub async fn retain_output(&self, before: Micros, cap_bytes: u64) -> Result<bool> {
        let old = store::delete_old_output(&self.store, before, OUTPUT_DELETE_PIECES_MAX).await?;
        if old == OUTPUT_DELETE_PIECES_MAX {
            return Ok(true);
        }
        if store::output_size(&self.store).await? <= cap_bytes {
            return Ok(false);
        }
        Ok(store::delete_oldest_output(&self.store, OUTPUT_DELETE_PIECES_MAX).await? > 0)
    }
}

/// Where tasks stand.
struct Standing {
    tallies: Tallies,
    /// Which of them await approval.
    held: HashSet<TaskId>,
    can_send: bool,
}

fn unknown() -> Error {
    Error::NotFound("Task not found".into())
}

async fn standing(mut read: impl Read, can_send: bool, tasks: &[TaskId]) -> Result<Standing> {
    let tallies = dispatch::tallies(&mut read, tasks).await?;
    // Most don't wait, and are not asked about.
    let waits = |task: &&TaskId| {
        tallies.get(*task).is_some_and(|tally| tally.iter().any(|(state, _)| *state == State::Waiting))
    };
    let waiting: Vec<TaskId> = tasks.iter().filter(waits).cloned().collect();
    let held = dispatch::held_among(read, &waiting).await?;
    Ok(Standing { can_send, tallies, held })
}

impl Standing {
    fn status(&self, task: &TaskId) -> TaskStatus {
        let tally = self.tallies.get(task).map_or(&[][..], Vec::as_slice);
        status(tally, Sending::of(self.held.contains(task), self.can_send))
    }
}

/// The entry of a command; values of its environment and input are not in it.
fn asked_for(task: &Task, hosts: usize, held: bool) -> Note<'_> {
    Note::of(Action::CommandRun, task.task_id.as_str()).new(json!({
        "target_type": task.target_type,
        "target": task.target,
        "hosts": hosts,
        "held": held,
        "command": task.command,
        "user": task.user,
        "timeout": task.timeout,
        "options": task.options,
    }))
}

fn nobody(target: &hosts::Target) -> Error {
    match target {
        hosts::Target::Node(_) => unknown_node(),
        hosts::Target::Nodes(_) => Error::NotFound("Unknown servers".into()),
        hosts::Target::Group(_) => Error::NotFound("Unknown group".into()),
        hosts::Target::Label { .. } => Error::NotFound("No server has this label".into()),
        hosts::Target::All => Error::NotFound("There is no server".into()),
    }
}

/// What an agent must know to understand this request.
fn features(request: &Checked) -> Vec<&'static str> {
    let o = &request.options;
    let wanted = [
        ("argv", o.argv.is_some()),
        ("env", !request.env.is_empty()),
        ("cwd", o.cwd.is_some()),
        ("stdin", request.stdin.is_some()),
        ("output_limit", o.output_limit.is_some()),
        ("detached", o.detached),
    ];
    wanted.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect()
}

/// Writes the bodies of a task's messages.
fn body(task: &Arc<Task>, request: &Arc<Checked>) -> Body {
    let (task, request) = (Arc::clone(task), Arc::clone(request));
    Arc::new(move |claims| {
        serde_json::to_vec(&message(&task, &request, claims)).map_err(|e| Error::Internal(e.to_string()))
    })
}

fn message(task: &Task, request: &Checked, claims: &MessageClaims) -> Command {
    Command {
        iss: "controller".into(),
        aud: claims.aud.clone(),
        iat: claims.iat,
        exp: claims.exp,
        jti: claims.jti.clone(),
        task_id: task.task_id.clone(),
        command: request.command.clone(),
        argv: request.options.argv.clone(),
        env: request.env.clone(),
        cwd: request.options.cwd.clone(),
        stdin: request.stdin.clone(),
        timeout: request.timeout,
        user: request.user.clone(),
        output_limit: request.options.output_limit,
        detached: request.options.detached,
        approval: None,
    }
}
