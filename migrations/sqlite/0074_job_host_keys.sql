-- The host key that each host and port showed first, and must show again.
CREATE TABLE job_host_keys (
    host TEXT NOT NULL CHECK (length(host) <= 253),
    port INTEGER NOT NULL,
    host_key TEXT NOT NULL,
    job_id INTEGER NOT NULL,
    pinned_at INTEGER NOT NULL,
    PRIMARY KEY (host, port)
);
