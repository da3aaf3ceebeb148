//! What can be done with jobs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use signet_common::deploy::CommitId;
use signet_common::fault::{self, JobPoint};
use signet_common::ids::StartId;
use signet_common::time::Micros;
use tokio::sync::Notify;

use super::host_key_store;
use super::model::{self, Job, JobStatus, Target};
use super::pace::Pace;
use super::request::Rules as RequestRules;
use super::secrets::Login;
use super::store;
use super::tasks;
use super::views::DetailView;
use crate::approvals::Approvals;
use crate::audit::{self, Action, Author, Note};
use crate::dispatch::Dispatch;
use crate::error::{Error, Result};
use crate::hosts::Hosts;
use crate::keys::Keys;
use crate::loops::Loops;
use crate::repositories::Repositories;
use crate::settings::{Deploying, Settings};
use crate::store::{Store, StoreError, Tx, in_transaction};

/// What the operator decided.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) ansible_playbook: PathBuf,
    pub(super) protocols: BTreeSet<String>,
    host_keys: model::HostKeyPolicy,
    pub(super) data_dir: PathBuf,
}

impl Rules {
    /// As git itself takes them.
    pub(super) fn protocols_for_git(&self) -> String {
        self.protocols.iter().map(String::as_str).collect::<Vec<_>>().join(":")
    }
}

/// Jobs. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    store: Store,
    keys: Keys,
    rules: Arc<Rules>,
    hosts: Hosts,
    dispatch: Dispatch,
    approvals: Approvals,
    repositories: Repositories,
    wake: Arc<Notify>,
    holder: Arc<str>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jobs")
    }
}

impl Jobs {
    /// Jobs in this database.
    #[must_use]
    pub fn new(
        store: Store,
        keys: Keys,
        (hosts, dispatch, approvals, repositories): (Hosts, Dispatch, Approvals, Repositories),
        settings: &Settings,
    ) -> Self {
        let Deploying { ansible_playbook, git_protocols, host_keys } = settings.deploying.clone();
        let data_dir = settings.data_dir.clone();
        let rules = Rules { ansible_playbook, protocols: git_protocols, host_keys, data_dir };
        let holder = StartId::generate().to_string().into();
        Self {
            store,
            keys,
            rules: Arc::new(rules),
            hosts,
            dispatch,
            approvals,
            repositories,
            wake: Arc::default(),
            holder,
        }
    }

    /// Starts what takes jobs and runs them.
    pub fn run(&self, loops: &mut Loops) {
        loops.spawn("the jobs", super::runner::work(self.clone(), loops.stop()));
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    pub(super) fn dispatch(&self) -> &Dispatch {
        &self.dispatch
    }

    pub(super) fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    pub(super) fn repositories(&self) -> &Repositories {
        &self.repositories
    }

    /// This controller, as the holder of leases.
    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn request_rules(&self) -> RequestRules<'_> {
        RequestRules { protocols: &self.rules.protocols, host_keys: self.rules.host_keys }
    }

    /// There may be something to do.
    pub(super) fn ring(&self) {
        self.wake.notify_one();
    }

    /// Waits until there may be something to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The job, or 404.
    pub(super) async fn job(&self, id: i64) -> Result<Job> {
        store::one(&self.store, id).await?.ok_or_else(unknown)
    }

    /// The job with its hosts and what people are asked about it, or were: all of one moment. Or 404.
    pub(super) async fn detail(&self, id: i64) -> Result<DetailView> {
        let task = tasks::task(id, tasks::Part::Deploy)?;
        let mut read = self.store.snapshot().await?;
        let job = store::one(&mut read, id).await?.ok_or_else(unknown)?;
        let targets = store::targets(&mut read, id).await?;
        let approval = self.approvals.of(&mut read, &task).await?;
        read.end().await?;
        Ok(DetailView::of(job, targets, approval))
    }

    pub(super) async fn targets(&self, id: i64) -> Result<Vec<Target>> {
        Ok(store::targets(&self.store, id).await?)
    }

    /// Waits for the job's end, for so long at most.
    pub(super) async fn wait(&self, id: i64, limit: Duration) -> Result<JobStatus> {
        let until = tokio::time::Instant::now() + limit;
        let pace = Pace::begin();
        loop {
            let status = self.job(id).await?.status;
            if status.is_final() || tokio::time::Instant::now() >= until {
                return Ok(status);
            }
            pace.next().await;
        }
    }

    /// Notes the one commit that all hosts of a job get, and gives the one that it is: the first that was noted.
    pub(super) async fn put_commit(&self, id: i64, commit: &CommitId) -> Result<CommitId> {
        let noted = in_transaction!(self.store, |tx| -> Result<Option<String>> {
            put_commit(tx, id, commit.as_str()).await?;
            Ok(store::commit_of(tx, id).await?)
        })?;
        let noted = noted.ok_or_else(unknown)?;
        fault::hit(JobPoint::Pinned);
        noted.parse().map_err(|_| Error::Internal("a job's commit is none".into()))
    }

    /// Notes why a job under way will not succeed as a whole.
    pub(super) async fn put_reason(&self, id: i64, reason: &str) -> Result<()> {
        let reason = super::text::reason(reason);
        in_transaction!(self.store, |tx| -> Result<()> { Ok(store::put_reason(tx, id, &reason).await?) })
    }

    /// Keeps keys that hosts showed for the first time.
    pub(super) async fn pin(&self, job: &Job, keys: &[(&Login, String)]) -> Result<()> {
        let by = Author::controller("jobs");
        in_transaction!(self.store, |tx| -> Result<()> {
            for (login, key) in keys {
                let host = login.host.to_ascii_lowercase();
                // Another job may have been first.
                if !host_key_store::pin(tx, &host, login.port, key, job.id, Micros::now()).await? {
                    continue;
                }
                let object = format!("{host} port {}", login.port);
                let note = Note::of(Action::JobHostKeyPin, &object);
                audit::note(tx, &by, note.new(json!({ "key": key, "job_id": model::shown(job.id) }))).await?;
            }
            Ok(())
        })
    }

    /// Deletes a few jobs that were over before this, or a part of one's log; says whether there is more to delete.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_old(&self, before: Micros) -> Result<bool> {
        in_transaction!(self.store, |tx| -> Result<bool> { Ok(store::delete_old(tx, before).await?) })
    }

    /// Deletes what jobs logged in with, past its time.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget_secrets(&self) -> Result<()> {
        let now = Micros::now();
        in_transaction!(self.store, |tx| -> Result<()> { Ok(store::delete_old_secrets(tx, now).await?) })
    }
}

/// Notes the one commit of a job; the first one stays. Of a retry the log says when it is another one than the job before it
/// deployed: what is retried is the request.
pub(super) async fn put_commit(tx: &mut Tx, id: i64, commit: &str) -> Result<(), StoreError> {
    if !store::put_commit(tx, id, commit).await? {
        return Ok(());
    }
    let Some(Job { retry_of: Some(before), plan, .. }) = store::one(&mut *tx, id).await? else {
        return Ok(());
    };
    let Some(old) = store::commit_of(tx, before).await?.filter(|old| old != commit) else { return Ok(()) };
    let name = plan.git_branch.as_deref().map_or("the default branch".into(), super::text::printable);
    let short = |commit: &str| commit.chars().take(SHORT_COMMIT).collect::<String>();
    let line = format!("{name} is {}..{} since {}", short(&old), short(commit), model::shown(before));
    store::lock(tx, id, &[store::line(None, line)]).await
}

/// Digits of a commit's id that tell it from others, for people.
const SHORT_COMMIT: usize = 12;

pub(super) fn unknown() -> Error {
    Error::NotFound("Job not found".into())
}
