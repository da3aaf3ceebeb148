-- Switches of the whole installation.
CREATE TABLE settings (
    name TEXT NOT NULL CHECK (length(name) <= 64),
    value TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (name)
);
