-- Git deployments: what was asked for, and where each job stands. Who runs it holds a lease by the database's clock.
CREATE TABLE jobs (
    id INTEGER NOT NULL,
    account TEXT NOT NULL CHECK (length(account) <= 150),
    status TEXT NOT NULL CHECK (length(status) <= 16),
    git_repo TEXT NOT NULL,
    git_branch TEXT,
    dest_path TEXT NOT NULL,
    run_mode TEXT NOT NULL CHECK (length(run_mode) <= 16),
    options TEXT NOT NULL,
    reason TEXT NOT NULL,
    commit_id TEXT CHECK (length(commit_id) <= 64),
    targets_count INTEGER NOT NULL,
    retry_of INTEGER,
    requested_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    cancel_at INTEGER,
    last_line INTEGER NOT NULL,
    holder TEXT NOT NULL CHECK (length(holder) <= 64),
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX jobs_status ON jobs (status, id);
CREATE INDEX jobs_requested ON jobs (requested_at);
INSERT INTO counters (name, last) VALUES ('jobs', 0);
