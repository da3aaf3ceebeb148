-- SSH keys with which accounts sign approvals; each belongs to one account.
CREATE TABLE approver_keys (
    id TEXT NOT NULL CHECK (length(id) <= 36),
    user_id INTEGER NOT NULL,
    public_key TEXT NOT NULL,
    fingerprint TEXT NOT NULL CHECK (length(fingerprint) <= 64),
    comment TEXT NOT NULL CHECK (length(comment) <= 255),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX approver_keys_fingerprint ON approver_keys (fingerprint);
CREATE INDEX approver_keys_user_id ON approver_keys (user_id);
