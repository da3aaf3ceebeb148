-- What was held for approval: the exact statement, sealed because it may hold secrets, and what became of it.
CREATE TABLE approval_requests (
    task_id VARCHAR(64) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    requester VARCHAR(150) NOT NULL,
    needed BIGINT NOT NULL,
    digest VARCHAR(64) NOT NULL,
    sealed MEDIUMBLOB NOT NULL,
    agents BIGINT NOT NULL,
    timeout BIGINT NOT NULL,
    expires_in BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    state VARCHAR(16) NOT NULL,
    decided_by VARCHAR(150),
    decided_at BIGINT,
    reason TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (task_id),
    KEY approval_requests_created_at (created_at, task_id),
    KEY approval_requests_state (state, created_at, task_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
