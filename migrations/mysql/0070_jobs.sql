-- Git deployments: what was asked for, and where each job stands. Who runs it holds a lease by the database's clock.
CREATE TABLE jobs (
    id BIGINT NOT NULL,
    account VARCHAR(150) NOT NULL,
    status VARCHAR(16) NOT NULL,
    git_repo TEXT NOT NULL,
    git_branch TEXT,
    dest_path TEXT NOT NULL,
    run_mode VARCHAR(16) NOT NULL,
    options TEXT NOT NULL,
    reason TEXT NOT NULL,
    commit_id VARCHAR(64),
    targets_count BIGINT NOT NULL,
    retry_of BIGINT,
    requested_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    cancel_at BIGINT,
    last_line BIGINT NOT NULL,
    holder VARCHAR(64) NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (id),
    KEY jobs_status (status, id),
    KEY jobs_requested (requested_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO counters (name, last) VALUES ('jobs', 0);
