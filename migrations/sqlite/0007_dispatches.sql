-- One per task or job: its live sequence, batches and failure budget.
CREATE TABLE dispatches (
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    kind TEXT NOT NULL CHECK (length(kind) <= 16),
    created_at INTEGER NOT NULL,
    timeout INTEGER NOT NULL,
    max_failures INTEGER,
    cancelled_at INTEGER,
    released_batch INTEGER NOT NULL,
    last_batch INTEGER NOT NULL,
    open INTEGER NOT NULL,
    live_seq INTEGER NOT NULL,
    PRIMARY KEY (task_id)
);
CREATE INDEX dispatches_open ON dispatches (open);
