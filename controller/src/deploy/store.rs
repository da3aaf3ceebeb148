//! The SQL of jobs. Nobody else reads these tables.

use std::collections::HashMap;

use signet_common::time::Micros;

use super::model::{Engine, Job, JobStatus, Options, Plan, RunMode, Standing, Target, TargetStatus};
use crate::limits::{
    BATCH_ROWS_MAX, JOB_LINES_MAX, JOB_LOG_BYTES_MAX, JOB_WORDS_MAX, RETENTION_JOB_LINES_MAX,
    RETENTION_JOBS_MAX,
};
use crate::store::{Read, Statement, Store, StoreError, Tx, Value, corrupt, statements};

macro_rules! job {
    ($rest:literal) => {
        concat!(
            "SELECT id, account, status, git_repo, git_branch, dest_path, run_mode, options, reason, targets_count, \
                retry_of, requested_at, started_at, finished_at, cancel_at, commit_id, awaits, last_line FROM jobs ",
            $rest
        )
    };
}

/// Of [`Filter`] and [`Within`]: a job whose hosts are not all among those is left out.
macro_rules! within {
    () => {
        "(? IS NULL OR status = ?) AND requested_at >= ? AND requested_at < ? AND git_repo IN ({list}) \
            AND dest_path IN ({list}) AND (? OR targets_count = (SELECT COUNT(*) FROM job_targets t \
            WHERE t.job_id = jobs.id AND t.engine = 'agent' AND t.host IN ({list})))"
    };
}

statements! {
    /// Held until the end of the transaction: jobs are numbered, and taken, one at a time.
    NEXT_ID = same("UPDATE counters SET last = last + 1 WHERE name = 'jobs'");
    HOLD = same("UPDATE counters SET last = last WHERE name = 'jobs'");
    THIS_ID = same("SELECT last FROM counters WHERE name = 'jobs'");
    INSERT_JOB = same("INSERT INTO jobs (id, account, status, git_repo, git_branch, dest_path, run_mode, options, reason, \
            targets_count, retry_of, requested_at, last_line, holder, lease_until) VALUES {rows:15}");
    INSERT_TARGETS = same("INSERT INTO job_targets (job_id, ordinal, host, port, username, engine, status, reason) \
            VALUES {rows:8}");
    INSERT_SECRET = same("INSERT INTO job_secrets (job_id, sealed, expires_at) VALUES (?, ?, ?)");
    SELECT_SECRET = same("SELECT sealed, expires_at FROM job_secrets WHERE job_id = ?");
    SELECT_JOB = same(job!("WHERE id = ?"));
    LIST = same(job!("WHERE (? IS NULL OR status = ?) AND requested_at >= ? AND requested_at < ? \
            ORDER BY id DESC LIMIT ? OFFSET ?"));
    COUNT = same("SELECT COUNT(*) AS number FROM jobs WHERE (? IS NULL OR status = ?) AND requested_at >= ? \
            AND requested_at < ?");
    LIST_WITHIN = same(concat!(job!("WHERE "), within!(), " ORDER BY id DESC LIMIT ? OFFSET ?"));
    COUNT_WITHIN = same(concat!("SELECT COUNT(*) AS number FROM jobs WHERE ", within!()));
    REPOSITORIES = same("SELECT DISTINCT git_repo FROM jobs");
    PATHS = same("SELECT DISTINCT dest_path FROM jobs WHERE git_repo IN ({list})");
    TARGETS = same("SELECT ordinal, host, port, username, engine, status, changed, started_at, elapsed_ms, reason, \
            commit_id, inferred FROM job_targets WHERE job_id = ? ORDER BY ordinal");
    PUT_TARGET = same("UPDATE job_targets SET status = ?, changed = ?, started_at = ?, elapsed_ms = ?, reason = ?, \
            commit_id = ?, inferred = ? WHERE job_id = ? AND ordinal = ?");
    /// Holds the job's row, so that its changes and the lines of its log follow one another.
    LOCK_JOB = same("UPDATE jobs SET last_line = last_line + ?, log_bytes = log_bytes + ? WHERE id = ?");
    LAST_LINE = same("SELECT last_line FROM jobs WHERE id = ?");
    LOG_SIZE = same("SELECT last_line, log_bytes, log_cut FROM jobs WHERE id = ?");
    CUT = same("UPDATE jobs SET log_cut = 1 WHERE id = ?");
    INSERT_LINES = same("INSERT INTO job_lines (job_id, id, at, host, line) VALUES {rows:5}");
    LINES = same("SELECT id, at, host, line FROM job_lines WHERE job_id = ? AND id > ? ORDER BY id LIMIT ?");
    LAST_AT = same("SELECT n.host, j.dest_path, j.id, j.commit_id, j.git_repo FROM (SELECT t.host AS host, MAX(t.job_id) AS id \
            FROM job_targets t JOIN jobs o ON o.id = t.job_id WHERE t.host IN ({list}) AND o.dest_path IN ({list}) \
            AND t.engine = 'agent' AND t.status = 'SUCCESS' GROUP BY t.host, o.dest_path) n JOIN jobs j ON j.id = n.id");
    /// Hosts that a finished job brought this commit to, at this place.
    DEPLOYED = same("SELECT COUNT(*) FROM job_targets t JOIN jobs j ON j.id = t.job_id WHERE t.commit_id = ? \
            AND t.status = 'SUCCESS' AND j.finished_at IS NOT NULL AND j.git_repo = ? AND j.dest_path = ? \
            AND LOWER(t.host) IN ({list})");
    PUT_COMMIT = same("UPDATE jobs SET commit_id = ? WHERE id = ? AND commit_id IS NULL");
    COMMIT_OF = same("SELECT commit_id FROM jobs WHERE id = ?");
    STATUS_OF = same("SELECT status, cancel_at FROM jobs WHERE id = ?");
    PUT_STATUS = same("UPDATE jobs SET status = ? WHERE id = ?");
    PUT_REASON = same("UPDATE jobs SET reason = ? WHERE id = ?");
    CANCEL = same("UPDATE jobs SET cancel_at = ? WHERE id = ? AND cancel_at IS NULL");
    FINISH = same("UPDATE jobs SET status = ?, reason = ?, finished_at = ?, holder = '', lease_until = 0 WHERE id = ?");
    FAIL_OPEN_TARGETS = same("UPDATE job_targets SET status = 'FAILED', changed = 0, elapsed_ms = 0, reason = ?, inferred = 1 \
            WHERE job_id = ? AND status IN ('PENDING', 'RUNNING')");
    /// A job that is under way, or waits, needs its own still.
    DELETE_OLD_SECRETS = same("DELETE FROM job_secrets WHERE expires_at < ? AND NOT EXISTS \
            (SELECT 1 FROM jobs WHERE jobs.id = job_secrets.job_id AND jobs.finished_at IS NULL)");
    OLD = same("SELECT id FROM jobs WHERE finished_at < ? ORDER BY id LIMIT ?");
    FIRST_LINE = same("SELECT MIN(id) FROM job_lines WHERE job_id = ?");
    DELETE_LINES = same("DELETE FROM job_lines WHERE job_id = ? AND id < ?");
    DELETE_SECRETS = same("DELETE FROM job_secrets WHERE job_id IN ({list})");
    DELETE_TARGETS = same("DELETE FROM job_targets WHERE job_id IN ({list})");
    DELETE_JOBS = same("DELETE FROM jobs WHERE id IN ({list})");
}

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

#[derive(sqlx::FromRow)]
struct TargetRow {
    ordinal: i64,
    host: String,
    port: Option<i64>,
    username: Option<String>,
    engine: String,
    status: String,
    changed: Option<i64>,
    started_at: Option<i64>,
    elapsed_ms: Option<i64>,
    reason: String,
    commit_id: Option<String>,
    inferred: i64,
}

impl TryFrom<TargetRow> for Target {
    type Error = StoreError;
    fn try_from(row: TargetRow) -> Result<Self, StoreError> {
        Ok(Self {
            ordinal: row.ordinal,
            host: row.host,
            port: row.port.map(u16::try_from).transpose().map_err(corrupt)?,
            username: row.username,
            engine: Engine::parse(&row.engine).ok_or_else(|| corrupt("engine"))?,
            standing: Standing {
                status: TargetStatus::parse(&row.status).ok_or_else(|| corrupt("status"))?,
                changed: row.changed.map(|n| n != 0),
                started_at: row.started_at.map(Micros),
                elapsed_ms: row.elapsed_ms,
                reason: row.reason,
                commit: row.commit_id,
                inferred: row.inferred != 0,
            },
        })
    }
}

/// A job that is to be written.
pub(super) struct NewJob<'a> {
    pub(super) account: &'a str,
    pub(super) plan: &'a Plan,
    pub(super) retry_of: Option<i64>,
    pub(super) now: Micros,
    /// Host, port, account.
    pub(super) targets: Vec<(String, Option<u16>, Option<String>, Engine)>,
}

/// The next id; who asks for it is alone with jobs until the end of the transaction.
pub(super) async fn next_id(tx: &mut Tx) -> Result<i64, StoreError> {
    tx.run(NEXT_ID.query()).await?;
    let row: Option<(i64,)> = tx.first(THIS_ID.query()).await?;
    row.map(|(id,)| id).ok_or_else(|| corrupt("there is no counter for jobs"))
}

/// Notes why a job under way will not succeed as a whole.
pub(super) async fn put_reason(tx: &mut Tx, job: i64, reason: &str) -> Result<(), StoreError> {
    tx.run(PUT_REASON.bind(reason).bind(job)).await.map(drop)
}

/// Waits until nobody else numbers or takes a job.
pub(super) async fn hold(tx: &mut Tx) -> Result<(), StoreError> {
    tx.run(HOLD.query()).await.map(drop)
}

pub(super) async fn insert(tx: &mut Tx, id: i64, new: &NewJob<'_>) -> Result<(), StoreError> {
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
    let rows: Vec<[Value; 8]> = new
        .targets
        .iter()
        .enumerate()
        .map(|(ordinal, (host, port, user, engine))| {
            [
                id.into(),
                (ordinal as u64).into(),
                host.as_str().into(),
                port.map(i64::from).into(),
                user.as_deref().into(),
                engine.as_str().into(),
                TargetStatus::Pending.as_str().into(),
                "".into(),
            ]
        })
        .collect();
    for some in rows.chunks(BATCH_ROWS_MAX) {
        tx.run(INSERT_TARGETS.query().rows(some.iter().cloned())).await?;
    }
    Ok(())
}

pub(super) async fn put_secret(
    tx: &mut Tx,
    job: i64,
    sealed: Vec<u8>,
    expires_at: Micros,
) -> Result<(), StoreError> {
    tx.run(INSERT_SECRET.bind(job).bind(sealed).bind(expires_at)).await.map(drop)
}

/// What the job logs in with, sealed, and until when it is kept.
pub(super) async fn secret(store: &Store, job: i64) -> Result<Option<(Vec<u8>, Micros)>, StoreError> {
    let row: Option<(Vec<u8>, i64)> = store.first(SELECT_SECRET.bind(job)).await?;
    Ok(row.map(|(sealed, until)| (sealed, Micros(until))))
}

pub(super) async fn one(mut read: impl Read, id: i64) -> Result<Option<Job>, StoreError> {
    read.first::<JobRow>(SELECT_JOB.bind(id)).await?.map(TryInto::try_into).transpose()
}

/// What a list is narrowed to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter {
    pub(super) status: Option<JobStatus>,
    /// Inclusive.
    pub(super) from: Micros,
    /// Exclusive.
    pub(super) to: Micros,
}

/// Only jobs of these repositories, to these paths, as they are written there.
#[derive(Debug)]
pub(super) struct Within {
    pub(super) repositories: Vec<String>,
    pub(super) paths: Vec<String>,
    /// By the agents of these hosts alone; none = on any, by whatever carries it.
    pub(super) hosts: Option<Vec<String>>,
}

/// Repositories as they are written in jobs.
pub(super) async fn repositories(store: &Store) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> = store.all(REPOSITORIES.query()).await?;
    Ok(rows.into_iter().map(|(one,)| one).collect())
}

/// Where jobs of these repositories went.
pub(super) async fn paths(store: &Store, repositories: &[String]) -> Result<Vec<String>, StoreError> {
    let repositories = repositories.iter().map(String::as_str);
    let rows: Vec<(String,)> = store.all(PATHS.query().list(repositories)).await?;
    Ok(rows.into_iter().map(|(one,)| one).collect())
}

/// A page, newest first, and how many there are in all.
pub(super) async fn list(
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
    let jobs = rows.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    Ok((jobs, count.map_or(0, |(n,)| n)))
}

pub(super) async fn targets(mut read: impl Read, job: i64) -> Result<Vec<Target>, StoreError> {
    let rows: Vec<TargetRow> = read.all(TARGETS.bind(job)).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

pub(super) async fn put_target(
    tx: &mut Tx,
    job: i64,
    ordinal: i64,
    standing: &Standing,
) -> Result<(), StoreError> {
    let query = PUT_TARGET
        .bind(standing.status.as_str())
        .bind(standing.changed)
        .bind(standing.started_at)
        .bind(standing.elapsed_ms)
        .bind(standing.reason.as_str())
        .bind(standing.commit.as_deref())
        .bind(standing.inferred);
    tx.run(query.bind(job).bind(ordinal)).await.map(drop)
}

/// A line that is to be added to a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewLine {
    pub(super) at: Micros,
    pub(super) host: Option<String>,
    /// Printable, without its end.
    pub(super) line: String,
}

impl NewLine {
    /// Of its text.
    const fn bytes(&self) -> u64 {
        self.line.len() as u64
    }
}

/// A line of which a log keeps as many as it has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// What a program wrote.
    Output(NewLine),
    /// How a host ended: it is said even in a log that is full.
    Word(NewLine),
}

/// Holds the job's row until the end of the transaction, and gives those of the lines that its log has room for. The first
/// time that one is left out, a line says so, and from then on only words are kept.
pub(super) async fn fitting(tx: &mut Tx, job: i64, lines: Vec<Kept>) -> Result<Vec<NewLine>, StoreError> {
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
pub(super) async fn lock(tx: &mut Tx, job: i64, lines: &[NewLine]) -> Result<(), StoreError> {
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
pub(super) struct Line {
    pub(super) id: i64,
    pub(super) at: Micros,
    pub(super) host: Option<String>,
    pub(super) line: String,
}

pub(super) async fn lines(
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

/// The newest job that deployed to a path.
#[derive(Debug)]
pub(super) struct LastJob {
    pub(super) id: i64,
    /// The commit that it wanted.
    pub(super) commit: Option<String>,
    pub(super) git_repo: String,
}

/// The newest job that deployed to one of these paths of one of these enrolled hosts, by host and path.
pub(super) async fn last_at(
    store: &Store,
    hosts: impl IntoIterator<Item = &str>,
    paths: impl IntoIterator<Item = &str>,
) -> Result<HashMap<(String, String), LastJob>, StoreError> {
    let rows: Vec<(String, String, i64, Option<String>, String)> =
        store.all(LAST_AT.query().list(hosts).list(paths)).await?;
    let keyed = |(host, path, id, commit, git_repo)| ((host, path), LastJob { id, commit, git_repo });
    Ok(rows.into_iter().map(keyed).collect())
}

pub(super) async fn cancel(tx: &mut Tx, job: i64, now: Micros) -> Result<(), StoreError> {
    tx.run(CANCEL.bind(now).bind(job)).await.map(drop)
}

/// On how many of these hosts, in lower case, a finished job of this repository left this commit at this path.
pub(super) async fn deployed(
    store: &Store,
    commit: &str,
    plan: &Plan,
    hosts: Vec<String>,
) -> Result<i64, StoreError> {
    let query = DEPLOYED.bind(commit).bind(plan.git_repo.as_str()).bind(plan.dest_path.as_str());
    let row: Option<(i64,)> = store.first(query.list(hosts)).await?;
    Ok(row.map_or(0, |(n,)| n))
}

/// Where a job stands, and whether somebody asked to cancel it.
pub(super) async fn status_of(tx: &mut Tx, job: i64) -> Result<Option<(JobStatus, bool)>, StoreError> {
    let row: Option<(String, Option<i64>)> = tx.first(STATUS_OF.bind(job)).await?;
    let read = |(status, cancel_at): (String, Option<i64>)| {
        Ok((JobStatus::parse(&status).ok_or_else(|| corrupt("status"))?, cancel_at.is_some()))
    };
    row.map(read).transpose()
}

/// Of a job that was over already, what its hosts' own words made of it.
pub(super) async fn put_status(tx: &mut Tx, job: i64, status: JobStatus) -> Result<(), StoreError> {
    tx.run(PUT_STATUS.bind(status.as_str()).bind(job)).await.map(drop)
}

/// The one commit of a job, once it is known.
pub(super) async fn commit_of(tx: &mut Tx, job: i64) -> Result<Option<String>, StoreError> {
    let row: Option<(Option<String>,)> = tx.first(COMMIT_OF.bind(job)).await?;
    Ok(row.and_then(|(commit,)| commit))
}

/// Notes the one commit of a job; the first one stays. Says whether this is it.
pub(super) async fn put_commit(tx: &mut Tx, job: i64, commit: &str) -> Result<bool, StoreError> {
    Ok(tx.run(PUT_COMMIT.bind(commit).bind(job)).await? > 0)
}

pub(super) async fn finish(
    tx: &mut Tx,
    job: i64,
    status: JobStatus,
    reason: &str,
    now: Micros,
) -> Result<(), StoreError> {
    tx.run(FINISH.bind(status.as_str()).bind(reason).bind(now).bind(job)).await.map(drop)
}

/// Ends what is open of a job, whatever stands in its rows.
pub(super) async fn fail_unread(tx: &mut Tx, job: i64, reason: &str, now: Micros) -> Result<(), StoreError> {
    tx.run(FAIL_OPEN_TARGETS.bind(reason).bind(job)).await?;
    finish(tx, job, JobStatus::Failed, reason, now).await
}

pub(super) async fn delete_old_secrets(tx: &mut Tx, now: Micros) -> Result<(), StoreError> {
    tx.run(DELETE_OLD_SECRETS.bind(now)).await.map(drop)
}

/// Deletes some lines of jobs that were over before this, and the jobs of which no line is left; says whether there may be more
/// to delete. A log may be too large for one statement.
pub(super) async fn delete_old(tx: &mut Tx, before: Micros) -> Result<bool, StoreError> {
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
