-- The hosts of each job, in the order of the request.
CREATE TABLE job_targets (
    job_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    host TEXT NOT NULL CHECK (length(host) <= 253),
    port INTEGER,
    username TEXT CHECK (length(username) <= 64),
    engine TEXT NOT NULL CHECK (length(engine) <= 8),
    status TEXT NOT NULL CHECK (length(status) <= 16),
    changed INTEGER,
    started_at INTEGER,
    elapsed_ms INTEGER,
    reason TEXT NOT NULL,
    commit_id TEXT CHECK (length(commit_id) <= 64),
    PRIMARY KEY (job_id, ordinal)
);
CREATE INDEX job_targets_host ON job_targets (host, job_id);
