-- What was asked for.
CREATE TABLE tasks (
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    account TEXT NOT NULL CHECK (length(account) <= 64),
    idempotency_key TEXT CHECK (length(idempotency_key) <= 255),
    body_digest TEXT NOT NULL CHECK (length(body_digest) <= 64),
    target_type TEXT NOT NULL CHECK (length(target_type) <= 16),
    target TEXT CHECK (length(target) <= 255),
    command TEXT NOT NULL,
    options TEXT NOT NULL,
    timeout INTEGER NOT NULL,
    user_name TEXT CHECK (length(user_name) <= 128),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (task_id)
);
CREATE UNIQUE INDEX tasks_idempotency ON tasks (account, idempotency_key);
CREATE INDEX tasks_created_at ON tasks (created_at, task_id);
