-- What needs the approval of how many others; without a group, what is for all hosts.
CREATE TABLE approval_rules (
    id TEXT NOT NULL CHECK (length(id) <= 36),
    host_group TEXT CHECK (length(host_group) <= 128),
    approvals INTEGER NOT NULL,
    kinds TEXT NOT NULL CHECK (length(kinds) <= 255),
    expires_in INTEGER NOT NULL,
    made_by TEXT NOT NULL CHECK (length(made_by) <= 150),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (id)
);
