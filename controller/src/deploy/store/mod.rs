//! The SQL of jobs. Nobody else reads these tables.

mod jobs;
mod lines;
mod targets;

pub(super) use jobs::*;
pub(super) use lines::*;
pub(super) use targets::*;

use crate::store::statements;

macro_rules! job {
    ($rest:literal) => {
        concat!(
            "SELECT id, account, status, git_repo, git_branch, dest_path, run_mode, options, reason, targets_count, \
                retry_of, requested_at, started_at, finished_at, cancel_at, commit_id, awaits, last_line FROM jobs ",
            $rest
        )
    };
}

macro_rules! targets {
    ($rest:literal) => {
        concat!(
            "SELECT ordinal, host, port, username, engine, status, changed, started_at, elapsed_ms, reason, commit_id, \
                inferred FROM job_targets ",
            $rest
        )
    };
}

macro_rules! put_targets {
    ($rest:literal) => {
        concat!(
            "INSERT INTO job_targets (job_id, ordinal, host, engine, status, changed, started_at, elapsed_ms, reason, \
                commit_id, inferred) VALUES {rows:11} ",
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
    TARGETS = same(targets!("WHERE job_id = ? ORDER BY ordinal"));
    /// Of the hosts with agents these.
    TARGETS_AMONG = same(targets!("WHERE job_id = ? AND engine = 'agent' AND host IN ({list})"));
    /// The rows are there: what is inserted is never new.
    PUT_TARGETS = differ(
        put_targets!("ON DUPLICATE KEY UPDATE status = VALUES(status), changed = VALUES(changed), \
            started_at = VALUES(started_at), elapsed_ms = VALUES(elapsed_ms), reason = VALUES(reason), \
            commit_id = VALUES(commit_id), inferred = VALUES(inferred)"),
        put_targets!("ON CONFLICT (job_id, ordinal) DO UPDATE SET status = excluded.status, changed = excluded.changed, \
            started_at = excluded.started_at, elapsed_ms = excluded.elapsed_ms, reason = excluded.reason, \
            commit_id = excluded.commit_id, inferred = excluded.inferred"),
    );
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
