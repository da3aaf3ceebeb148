-- What was held for approval: the exact statement, sealed because it may hold secrets, and what became of it.
CREATE TABLE approval_requests (
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    kind TEXT NOT NULL CHECK (length(kind) <= 16),
    requester TEXT NOT NULL CHECK (length(requester) <= 150),
    needed INTEGER NOT NULL,
    digest TEXT NOT NULL CHECK (length(digest) <= 64),
    sealed BLOB NOT NULL,
    agents INTEGER NOT NULL,
    timeout INTEGER NOT NULL,
    expires_in INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (length(state) <= 16),
    decided_by TEXT CHECK (length(decided_by) <= 150),
    decided_at INTEGER,
    reason TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (task_id)
);
CREATE INDEX approval_requests_created_at ON approval_requests (created_at, task_id);
CREATE INDEX approval_requests_state ON approval_requests (state, created_at, task_id);
