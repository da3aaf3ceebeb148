-- What was asked for.
CREATE TABLE tasks (
    task_id VARCHAR(64) NOT NULL,
    account VARCHAR(64) NOT NULL,
    idempotency_key VARCHAR(255),
    body_digest VARCHAR(64) NOT NULL,
    target_type VARCHAR(16) NOT NULL,
    target VARCHAR(255),
    command MEDIUMTEXT NOT NULL,
    options MEDIUMTEXT NOT NULL,
    timeout BIGINT NOT NULL,
    user_name VARCHAR(128),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (task_id),
    UNIQUE KEY tasks_idempotency (account, idempotency_key),
    KEY tasks_created_at (created_at, task_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
