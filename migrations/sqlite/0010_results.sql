-- How each command ended in the agent's words.
CREATE TABLE results (
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    hostname TEXT NOT NULL CHECK (length(hostname) <= 253),
    stdout_bytes INTEGER NOT NULL,
    stdout_omitted_from INTEGER,
    stdout_omitted_bytes INTEGER NOT NULL,
    stdout_sha256 TEXT NOT NULL CHECK (length(stdout_sha256) <= 64),
    stderr_bytes INTEGER NOT NULL,
    stderr_omitted_from INTEGER,
    stderr_omitted_bytes INTEGER NOT NULL,
    stderr_sha256 TEXT NOT NULL CHECK (length(stderr_sha256) <= 64),
    killed INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    PRIMARY KEY (task_id, hostname)
);
