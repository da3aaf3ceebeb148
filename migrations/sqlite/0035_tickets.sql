-- Tickets for one stream each, known by the SHA-256 of their text.
CREATE TABLE tickets (
    hash TEXT NOT NULL CHECK (length(hash) <= 64),
    whose TEXT NOT NULL CHECK (length(whose) <= 80),
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (hash)
);
CREATE INDEX tickets_expires_at ON tickets (expires_at);
