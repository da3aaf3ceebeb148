//! The SQL of taking jobs and keeping them.

use std::collections::{BTreeMap, BTreeSet};

use signet_common::time::Micros;

use super::model::Engine;
use super::places::{Host, Places};
use crate::limits::JOB_TARGETS_MAX;
use crate::store::{Store, StoreError, Tx, corrupt, statements};

statements! {
    PENDING = same("SELECT id, dest_path FROM jobs WHERE status = 'PENDING' AND awaits = 0 AND id > ? \
            ORDER BY id LIMIT ?");
    HOSTS = same("SELECT job_id, host, port, engine FROM job_targets WHERE job_id IN ({list})");
    BUSY = same("SELECT j.dest_path, t.host, t.port FROM jobs j JOIN job_targets t ON t.job_id = j.id \
            WHERE j.status = 'RUNNING' AND LOWER(t.host) IN ({list})");
    CLAIM = differ(
        "UPDATE jobs SET status = 'RUNNING', started_at = ?, holder = ?, \
            lease_until = CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) + ? WHERE id = ? AND status = 'PENDING'",
        "UPDATE jobs SET status = 'RUNNING', started_at = ?, holder = ?, \
            lease_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ? WHERE id = ? AND status = 'PENDING'",
    );
    /// It is nobody's until people have decided. What is cancelled is not left to them.
    AWAIT = same("UPDATE jobs SET status = 'PENDING', awaits = 1, started_at = NULL, holder = '', lease_until = 0 \
            WHERE id = ? AND holder = ? AND status = 'RUNNING' AND cancel_at IS NULL");
    AWAITING = same("SELECT id, cancel_at FROM jobs WHERE status = 'PENDING' AND awaits = 1 AND id > ? ORDER BY id LIMIT ?");
    DECIDED = same("UPDATE jobs SET awaits = 0 WHERE id = ? AND awaits = 1");
    RENEW = differ(
        "UPDATE jobs SET lease_until = CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) + ? \
            WHERE id = ? AND holder = ? AND status = 'RUNNING'",
        "UPDATE jobs SET lease_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ? \
            WHERE id = ? AND holder = ? AND status = 'RUNNING'",
    );
    WATCH = same("SELECT cancel_at FROM jobs WHERE id = ? AND holder = ? AND status = 'RUNNING'");
    LOST = differ(
        "SELECT id FROM jobs WHERE status = 'RUNNING' \
            AND lease_until < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) ORDER BY id",
        "SELECT id FROM jobs WHERE status = 'RUNNING' \
            AND lease_until < CAST(unixepoch('subsec') * 1000000 AS INTEGER) ORDER BY id",
    );
    TAKE_LOST = differ(
        "UPDATE jobs SET holder = ?, lease_until = CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED) + ? \
            WHERE id = ? AND status = 'RUNNING' AND lease_until < CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)",
        "UPDATE jobs SET holder = ?, lease_until = CAST(unixepoch('subsec') * 1000000 AS INTEGER) + ? \
            WHERE id = ? AND status = 'RUNNING' AND lease_until < CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
    );
    LET_GO = same("UPDATE jobs SET lease_until = 1 WHERE id = ? AND holder = ? AND status = 'RUNNING'");
}

/// A job that nobody took yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: i64,
    pub(super) dest_path: String,
    pub(super) hosts: Vec<Host>,
    /// Whether some host is reached over SSH.
    pub(super) over_ssh: bool,
}

/// Some of the jobs behind this one that nobody took yet, oldest first.
pub(super) async fn pending(store: &Store, after: i64, limit: usize) -> Result<Vec<Waiting>, StoreError> {
    let rows: Vec<(i64, String)> = store.all(PENDING.bind(after).bind(limit as u64)).await?;
    let mut jobs: BTreeMap<i64, Waiting> = rows
        .into_iter()
        .map(|(id, dest_path)| (id, Waiting { id, dest_path, hosts: Vec::new(), over_ssh: false }))
        .collect();
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, String, Option<i64>, String)> =
        store.all(HOSTS.query().list(jobs.keys().copied())).await?;
    for (id, host, port, engine) in rows {
        let Some(job) = jobs.get_mut(&id) else { continue };
        job.hosts.push(Host::new(&host, port.map(u16::try_from).transpose().map_err(corrupt)?));
        job.over_ssh |= engine == Engine::Ssh.as_str();
    }
    Ok(jobs.into_values().collect())
}

fn add(places: &mut Places, rows: Vec<(String, String, Option<i64>)>) -> Result<(), StoreError> {
    for (path, host, port) in rows {
        places.add(&path, &[Host::new(&host, port.map(u16::try_from).transpose().map_err(corrupt)?)]);
    }
    Ok(())
}

/// Adds where jobs under way deploy on the hosts of these.
pub(super) async fn add_busy(store: &Store, places: &mut Places, jobs: &[Waiting]) -> Result<(), StoreError> {
    let names: BTreeSet<&str> = jobs.iter().flat_map(|job| job.hosts.iter().map(Host::name)).collect();
    let names: Vec<&str> = names.into_iter().collect();
    for some in names.chunks(JOB_TARGETS_MAX) {
        add(places, store.all(BUSY.query().list(some.iter().copied())).await?)?;
    }
    Ok(())
}

/// Where jobs under way deploy on these hosts.
pub(super) async fn busy(tx: &mut Tx, hosts: &[Host]) -> Result<Places, StoreError> {
    let mut places = Places::default();
    add(&mut places, tx.all(BUSY.query().list(hosts.iter().map(Host::name))).await?)?;
    Ok(places)
}

/// Takes a job that nobody has; says whether it worked.
pub(super) async fn claim(
    tx: &mut Tx,
    job: i64,
    holder: &str,
    now: Micros,
    lease_micros: i64,
) -> Result<bool, StoreError> {
    Ok(tx.run(CLAIM.bind(now).bind(holder).bind(lease_micros).bind(job)).await? == 1)
}

pub(super) async fn renew(
    tx: &mut Tx,
    job: i64,
    holder: &str,
    lease_micros: i64,
) -> Result<bool, StoreError> {
    Ok(tx.run(RENEW.bind(lease_micros).bind(job).bind(holder)).await? == 1)
}

/// Whether the job is still this holder's, and whether it is to be cancelled.
pub(super) async fn watch(store: &Store, job: i64, holder: &str) -> Result<Option<bool>, StoreError> {
    let row: Option<(Option<i64>,)> = store.first(WATCH.bind(job).bind(holder)).await?;
    Ok(row.map(|(cancel,)| cancel.is_some()))
}

/// Jobs whose holder was not heard of for the length of a lease.
pub(super) async fn lost(store: &Store) -> Result<Vec<i64>, StoreError> {
    let rows: Vec<(i64,)> = store.all(LOST.query()).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

pub(super) async fn take_lost(
    tx: &mut Tx,
    job: i64,
    holder: &str,
    lease_micros: i64,
) -> Result<bool, StoreError> {
    Ok(tx.run(TAKE_LOST.bind(holder).bind(lease_micros).bind(job)).await? == 1)
}

/// Lets another controller take the job at once.
pub(super) async fn let_go(tx: &mut Tx, job: i64, holder: &str) -> Result<(), StoreError> {
    tx.run(LET_GO.bind(job).bind(holder)).await.map(drop)
}

/// Leaves a job of this holder to people; says whether it was this one's, and not cancelled.
pub(super) async fn await_decision(tx: &mut Tx, id: i64, holder: &str) -> Result<bool, StoreError> {
    Ok(tx.run(AWAIT.bind(id).bind(holder)).await? == 1)
}

/// Jobs that wait for people, and whether each is to be cancelled.
pub(super) async fn awaiting(
    store: &Store,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, bool)>, StoreError> {
    let rows: Vec<(i64, Option<i64>)> = store.all(AWAITING.bind(after).bind(limit as u64)).await?;
    Ok(rows.into_iter().map(|(id, cancel)| (id, cancel.is_some())).collect())
}

/// People decided on a job: it may be taken again.
pub(super) async fn decided(tx: &mut Tx, id: i64) -> Result<(), StoreError> {
    tx.run(DECIDED.bind(id)).await.map(drop)
}
