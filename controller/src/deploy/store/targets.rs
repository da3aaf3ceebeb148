//! A job's hosts, and how they stand.

use std::collections::HashMap;

use signet_common::time::Micros;

use super::super::model::{Engine, Plan, Standing, Target, TargetStatus};
use super::{DEPLOYED, INSERT_TARGETS, LAST_AT, PUT_TARGETS, TARGETS, TARGETS_AMONG};
use crate::limits::BATCH_ROWS_MAX;
use crate::store::{Read, Store, StoreError, Tx, Value, corrupt};

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

/// A target that is to be written: host, port, account, and what brings it there.
pub(in crate::deploy) type NewTarget = (String, Option<u16>, Option<String>, Engine);

/// Writes a new job's targets.
pub(super) async fn insert_targets(tx: &mut Tx, job: i64, new: &[NewTarget]) -> Result<(), StoreError> {
    let rows: Vec<[Value; 8]> = new
        .iter()
        .enumerate()
        .map(|(ordinal, (host, port, user, engine))| {
            [
                job.into(),
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

/// A job's targets in their order.
pub(in crate::deploy) async fn targets(mut read: impl Read, job: i64) -> Result<Vec<Target>, StoreError> {
    let rows: Vec<TargetRow> = read.all(TARGETS.bind(job)).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Of a job's targets those hosts with agents that have these names, in any order.
pub(in crate::deploy) async fn targets_among(
    tx: &mut Tx,
    job: i64,
    hosts: &[&str],
) -> Result<Vec<Target>, StoreError> {
    let mut found = Vec::new();
    for some in hosts.chunks(BATCH_ROWS_MAX) {
        let rows: Vec<TargetRow> = tx.all(TARGETS_AMONG.bind(job).list(some.iter().copied())).await?;
        for row in rows {
            found.push(row.try_into()?);
        }
    }
    Ok(found)
}

/// Writes where these targets stand now, which were read while the job's row was held, as it still is.
pub(in crate::deploy) async fn put_targets(
    tx: &mut Tx,
    job: i64,
    targets: &[Target],
) -> Result<(), StoreError> {
    for some in targets.chunks(BATCH_ROWS_MAX) {
        let rows = some.iter().map(|target| -> [Value; 11] {
            let standing = &target.standing;
            [
                job.into(),
                target.ordinal.into(),
                target.host.as_str().into(),
                target.engine.as_str().into(),
                standing.status.as_str().into(),
                standing.changed.into(),
                standing.started_at.into(),
                standing.elapsed_ms.into(),
                standing.reason.as_str().into(),
                standing.commit.as_deref().into(),
                standing.inferred.into(),
            ]
        });
        tx.run(PUT_TARGETS.query().rows(rows)).await?;
    }
    Ok(())
}

/// The newest job that deployed to a path.
#[derive(Debug)]
pub(in crate::deploy) struct LastJob {
    pub(in crate::deploy) id: i64,
    /// The commit that it wanted.
    pub(in crate::deploy) commit: Option<String>,
    pub(in crate::deploy) git_repo: String,
}

/// The newest job that deployed to one of these paths of one of these enrolled hosts, by host and path.
pub(in crate::deploy) async fn last_at(
    store: &Store,
    hosts: impl IntoIterator<Item = &str>,
    paths: impl IntoIterator<Item = &str>,
) -> Result<HashMap<(String, String), LastJob>, StoreError> {
    let rows: Vec<(String, String, i64, Option<String>, String)> =
        store.all(LAST_AT.query().list(hosts).list(paths)).await?;
    let keyed = |(host, path, id, commit, git_repo)| ((host, path), LastJob { id, commit, git_repo });
    Ok(rows.into_iter().map(keyed).collect())
}

/// On how many of these hosts, in lower case, a finished job of this repository left this commit at this path.
pub(in crate::deploy) async fn deployed(
    store: &Store,
    commit: &str,
    plan: &Plan,
    hosts: Vec<String>,
) -> Result<i64, StoreError> {
    let query = DEPLOYED.bind(commit).bind(plan.git_repo.as_str()).bind(plan.dest_path.as_str());
    let row: Option<(i64,)> = store.first(query.list(hosts)).await?;
    Ok(row.map_or(0, |(n,)| n))
}
