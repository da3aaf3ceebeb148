-- One per task or job: its live sequence, batches and failure budget.
CREATE TABLE dispatches (
    task_id VARCHAR(64) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    created_at BIGINT NOT NULL,
    timeout BIGINT NOT NULL,
    max_failures BIGINT,
    cancelled_at BIGINT,
    released_batch BIGINT NOT NULL,
    last_batch BIGINT NOT NULL,
    open BIGINT NOT NULL,
    live_seq BIGINT NOT NULL,
    PRIMARY KEY (task_id),
    KEY dispatches_open (open)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
