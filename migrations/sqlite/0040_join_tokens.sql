-- Tokens that let new hosts in. The secret's verifier is sealed with the master key.
CREATE TABLE join_tokens (
    id TEXT NOT NULL CHECK (length(id) <= 32),
    sealed BLOB NOT NULL,
    fingerprint TEXT NOT NULL CHECK (length(fingerprint) <= 64),
    grp TEXT CHECK (length(grp) <= 128),
    hostname TEXT CHECK (length(hostname) <= 253),
    max_uses INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL CHECK (length(created_by) <= 255),
    PRIMARY KEY (id)
);
-- Which agents a token let in: each counts once.
CREATE TABLE join_token_uses (
    token_id TEXT NOT NULL CHECK (length(token_id) <= 32),
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    used_at INTEGER NOT NULL,
    PRIMARY KEY (token_id, agent_id)
);
