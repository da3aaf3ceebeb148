//! Jobs themselves, and their secrets.

use signet_common::time::Micros;

use super::super::model::{Job, JobStatus, Options, Plan, RunMode};
use super::*;
use crate::limits::{RETENTION_JOB_LINES_MAX, RETENTION_JOBS_MAX};
use crate::store::{Read, Statement, Store, StoreError, Tx, Value, corrupt};

#[derive(sqlx::FromRow)]
struct JobRow {
    id: i64,
    account: String,
    status: String,
    git_repo: String,
    git_branch: Option<String>,
    dest_path: String,
    run_mode: String,
    options: String,
    reason: String,
    targets_count: i64,
    retry_of: Option<i64>,
    requested_at: i64,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    cancel_at: Option<i64>,
    commit_id: Option<String>,
    awaits: i64,
    last_line: i64,
}

impl TryFrom<JobRow> for Job {
    type Error = StoreError;
    fn try_from(row: JobRow) -> Result<Self, StoreError> {
        let plan = Plan {
            git_repo: row.git_repo,
            git_branch: row.git_branch,
            dest_path: row.dest_path,
            run_mode: RunMode::parse(&row.run_mode).ok_or_else(|| corrupt("run_mode"))?,
            options: serde_json::from_str::<Options>(&row.options).map_err(corrupt)?,
        };
        Ok(Self {
            id: row.id,
            account: row.account,
            status: JobStatus::parse(&row.status).ok_or_else(|| corrupt("status"))?,
            plan,
            reason: row.reason,
            targets_count: row.targets_count,
            retry_of: row.retry_of,
            requested_at: Micros(row.requested_at),
            started_at: row.started_at.map(Micros),
            finished_at: row.finished_at.map(Micros),
            cancel_at: row.cancel_at.map(Micros),
            commit: row.commit_id,
            awaits: row.awaits != 0,
            last_line: row.last_line,
        })
    }
}

/// A job that is to be written.
pub(in crate::deploy) struct NewJob<'a> {
    pub(in crate::deploy) account: &'a str,
    pub(in crate::deploy) plan: &'a Plan,
    pub(in crate::deploy) retry_of: Option<i64>,
    pub(in crate::deploy) now: Micros,
    pub(in crate::deploy) targets: Vec<NewTarget>,
}

/// The next id; who asks for it is alone with jobs until the end of the transaction.
pub(in crate::deploy) async fn next_id(tx: &mut Tx) -> Result<i64, StoreError> {
    tx.run(NEXT_ID.query()).await?;
    let row: Option<(i64,)> = tx.first(THIS_ID.query()).await?;
    row.map(|(id,)| id).ok_or_else(|| corrupt("there is no counter for jobs"))
}

/// Notes why a job under way will not succeed as a whole.
pub(in crate::deploy) async fn put_reason(tx: &mut Tx, job: i64, reason: &str) -> Result<(), StoreError> {
    tx.run(PUT_REASON.bind(reason).bind(job)).await.map(drop)
}

/// Waits until nobody else numbers or takes a job.
pub(in crate::deploy) async fn hold(tx: &mut Tx) -> Result<(), StoreError> {
    tx.run(HOLD.query()).await.map(drop)
}

pub(in crate::deploy) async fn insert(tx: &mut Tx, id: i64, new: &NewJob<'_>) -> Result<(), StoreError> {
    let plan = new.plan;
    let row: [Value; 15] = [
        id.into(),
        new.account.into(),
        JobStatus::Pending.as_str().into(),
        plan.git_repo.as_str().into(),
        plan.git_branch.as_deref().into(),
        plan.dest_path.as_str().into(),
        plan.run_mode.as_str().into(),
        serde_json::to_string(&plan.options).map_err(corrupt)?.into(),
        "".into(),
        (new.targets.len() as u64).into(),
        new.retry_of.into(),
        new.now.into(),
        0_i64.into(),
        "".into(),
        0_i64.into(),
    ];
    tx.run(INSERT_JOB.query().rows([row])).await?;
    insert_targets(tx, id, &new.targets).await
}

pub(in crate::deploy) async fn put_secret(
    tx: &mut Tx,
    job: i64,
    sealed: Vec<u8>,
    expires_at: Micros,
) -> Result<(), StoreError> {
    tx.run(INSERT_SECRET.bind(job).bind(sealed).bind(expires_at)).await.map(drop)
}

/// What the job logs in with, sealed, and until when it is kept.
pub(in crate::deploy) async fn secret(
    store: &Store,
    job: i64,
) -> Result<Option<(Vec<u8>, Micros)>, StoreError> {
    let row: Option<(Vec<u8>, i64)> = store.first(SELECT_SECRET.bind(job)).await?;
    Ok(row.map(|(sealed, until)| (sealed, Micros(until))))
}

pub(in crate::deploy) async fn one(mut read: impl Read, id: i64) -> Result<Option<Job>, StoreError> {
    read.first::<JobRow>(SELECT_JOB.bind(id)).await?.map(TryInto::try_into).transpose()
}

/// What a list is narrowed to.
#[derive(Debug, Clone, Copy)]
pub(in crate::deploy) struct Filter {
    pub(in crate::deploy) status: Option<JobStatus>,
    /// Inclusive.
    pub(in crate::deploy) from: Micros,
    /// Exclusive.
    pub(in crate::deploy) to: Micros,
}

/// Only jobs of these repositories, to these paths, as they are written there.
#[derive(Debug)]
pub(in crate::deploy) struct Within {
    pub(in crate::deploy) repositories: Vec<String>,
    pub(in crate::deploy) paths: Vec<String>,
    /// By the agents of these hosts alone; none = on any, by whatever carries it.
    pub(in crate::deploy) hosts: Option<Vec<String>>,
}

/// Repositories as they are written in jobs.
pub(in crate::deploy) async fn repositories(store: &Store) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = store.all(REPOSITORIES.query()).await?;
    Ok(rows.into_iter().map(|(one,)| one).collect())
}

/// Where jobs of these repositories went.
pub(in crate::deploy) async fn paths(
    store: &Store,
    repositories: &[String],
) -> Result<Vec<String>, StoreError> {
    let repositories = repositories.iter().map(String::as_str);
    let rows: Vec<(String,)> = store.all(PATHS.query().list(repositories)).await?;
    Ok(rows.into_iter().map(|(one,)| one).collect())
}

/// A page, newest first, and how many there are in all. One that can't be read, as a newer version may have written it, is
/// counted and not shown.
pub(in crate::deploy) async fn list(
    store: &Store,
    filter: Filter,
    within: Option<&Within>,
    limit: usize,
    offset: usize,
) -> Result<(Vec<Job>, i64), StoreError> {
    let status = filter.status.map(JobStatus::as_str);
    let narrowed = |statement: Statement| {
        let query = statement.bind(status).bind(status).bind(filter.from).bind(filter.to);
        let Some(Within { repositories, paths, hosts }) = within else { return query };
        let [repositories, paths] = [repositories, paths].map(|all| all.iter().map(String::as_str));
        let all = hosts.iter().flatten().map(String::as_str);
        query.list(repositories).list(paths).bind(hosts.is_none()).list(all)
    };
    let (list, count) = if within.is_some() { (LIST_WITHIN, COUNT_WITHIN) } else { (LIST, COUNT) };
    let rows: Vec<JobRow> = store.all(narrowed(list).bind(limit as u64).bind(offset as u64)).await?;
    let count: Option<(i64,)> = store.first(narrowed(count)).await?;
    let readable = |row: JobRow| {
        let id = row.id;
        let told =
            |error: &StoreError| tracing::warn!(job = id, %error, "a job can't be read; it is not listed");
        Job::try_from(row).inspect_err(told).ok()
    };
    let jobs = rows.into_iter().filter_map(readable).collect();
    Ok((jobs, count.map_or(0, |(n,)| n)))
}

pub(in crate::deploy) async fn cancel(tx: &mut Tx, job: i64, now: Micros) -> Result<(), StoreError> {
    tx.run(CANCEL.bind(now).bind(job)).await.map(drop)
}

/// Where a job stands, and whether somebody asked to cancel it.
pub(in crate::deploy) async fn status_of(
    tx: &mut Tx,
    job: i64,
) -> Result<Option<(JobStatus, bool)>, StoreError> {
    let row: Option<(String, Option<i64>)> = tx.first(STATUS_OF.bind(job)).await?;
    let read = |(status, cancel_at): (String, Option<i64>)| {
        Ok((JobStatus::parse(&status).ok_or_else(|| corrupt("status"))?, cancel_at.is_some()))
    };
    row.map(read).transpose()
}

/// Of a job that was over already, what its hosts' own words made of it.
pub(in crate::deploy) async fn put_status(
    tx: &mut Tx,
    job: i64,
    status: JobStatus,
) -> Result<(), StoreError> {
    tx.run(PUT_STATUS.bind(status.as_str()).bind(job)).await.map(drop)
}

/// The one commit of a job, once it is known.
pub(in crate::deploy) async fn commit_of(tx: &mut Tx, job: i64) -> Result<Option<String>, StoreError> {
    let row: Option<(Option<String>,)> = tx.first(COMMIT_OF.bind(job)).await?;
    Ok(row.and_then(|(commit,)| commit))
}

/// Notes the one commit of a job; the first one stays. Says whether this is it.
pub(in crate::deploy) async fn put_commit(tx: &mut Tx, job: i64, commit: &str) -> Result<bool, StoreError> {
    Ok(tx.run(PUT_COMMIT.bind(commit).bind(job)).await? > 0)
}

pub(in crate::deploy) async fn finish(
    tx: &mut Tx,
    job: i64,
    status: JobStatus,
    reason: &str,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(FINISH.bind(status.as_str()).bind(reason).bind(now).bind(job)).await.map(drop)
}

/// Ends what is open of a job, whatever stands in its rows.
pub(in crate::deploy) async fn fail_unread(
    tx: &mut Tx,
    job: i64,
    reason: &str,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(FAIL_OPEN_TARGETS.bind(reason).bind(job)).await?;
    finish(tx, job, JobStatus::Failed, reason, now).await
}

pub(in crate::deploy) async fn delete_old_secrets(tx: &mut Tx, now: Micros) -> Result<(), StoreError> {
    tx.run(DELETE_OLD_SECRETS.bind(now)).await.map(drop)
}

/// Deletes some lines of jobs that were over before this, and the jobs of which no line is left; says whether there may be more
/// to delete. A log may be too large for one statement.
pub(in crate::deploy) async fn delete_old(tx: &mut Tx, before: Micros) -> Result<bool, StoreError> {
    let rows: Vec<(i64,)> = tx.all(OLD.bind(before).bind(RETENTION_JOBS_MAX as u64)).await?;
    let (mut room, mut bare) = (RETENTION_JOB_LINES_MAX, Vec::new());
    for (id,) in &rows {
        lock(tx, *id, &[]).await?;
        while room > 0 {
            let first: Option<(Option<i64>,)> = tx.first(FIRST_LINE.bind(*id)).await?;
            let Some((Some(first),)) = first else {
                bare.push(*id);
                break;
            };
            let end = first.saturating_add(i64::try_from(room).unwrap_or(i64::MAX));
            room = room.saturating_sub(tx.run(DELETE_LINES.bind(*id).bind(end)).await?);
        }
    }
    if !bare.is_empty() {
        for statement in [DELETE_SECRETS, DELETE_TARGETS, DELETE_JOBS] {
            tx.run(statement.query().list(bare.iter().copied())).await?;
        }
    }
    Ok(bare.len() < rows.len() || rows.len() == RETENTION_JOBS_MAX)
}
