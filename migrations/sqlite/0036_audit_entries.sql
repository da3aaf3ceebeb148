-- Who did what: each entry as it is exported, with what it is looked for by. A block seals it within about a second.
CREATE TABLE audit_entries (
    id TEXT NOT NULL CHECK (length(id) <= 36),
    at INTEGER NOT NULL,
    who TEXT NOT NULL CHECK (length(who) <= 191),
    action TEXT NOT NULL CHECK (length(action) <= 64),
    object TEXT NOT NULL CHECK (length(object) <= 255),
    result TEXT NOT NULL CHECK (length(result) <= 16),
    entry TEXT NOT NULL,
    block_no INTEGER,
    PRIMARY KEY (id)
);
CREATE INDEX audit_entries_at ON audit_entries (at, id);
CREATE INDEX audit_entries_block_no ON audit_entries (block_no, at, id);
