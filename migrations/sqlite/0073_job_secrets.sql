-- What a job needs to log in, sealed with the master key, for a run and for retries.
CREATE TABLE job_secrets (
    job_id INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (job_id)
);
CREATE INDEX job_secrets_expires ON job_secrets (expires_at);
