-- Sealed with the master key.
CREATE TABLE secrets (
    name TEXT NOT NULL CHECK (length(name) <= 128),
    sealed BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (name)
);
