-- Tokens for programs, known by the SHA-256 of their text.
CREATE TABLE api_tokens (
    hash TEXT NOT NULL CHECK (length(hash) <= 64),
    id TEXT NOT NULL CHECK (length(id) <= 36),
    user_id INTEGER NOT NULL,
    name TEXT NOT NULL CHECK (length(name) <= 128),
    role TEXT NOT NULL CHECK (length(role) <= 16),
    scope TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    PRIMARY KEY (hash)
);
CREATE UNIQUE INDEX api_tokens_id ON api_tokens (id);
CREATE INDEX api_tokens_user_id ON api_tokens (user_id);
