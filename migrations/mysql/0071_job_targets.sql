-- The hosts of each job, in the order of the request.
CREATE TABLE job_targets (
    job_id BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    host VARCHAR(253) NOT NULL,
    port BIGINT,
    username VARCHAR(64),
    engine VARCHAR(8) NOT NULL,
    status VARCHAR(16) NOT NULL,
    changed BIGINT,
    started_at BIGINT,
    elapsed_ms BIGINT,
    reason TEXT NOT NULL,
    commit_id VARCHAR(64),
    PRIMARY KEY (job_id, ordinal),
    KEY job_targets_host (host, job_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
