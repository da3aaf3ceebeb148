-- Signed blocks over the entries, each naming the one before.
CREATE TABLE audit_blocks (
    block_no INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    head TEXT NOT NULL CHECK (length(head) <= 64),
    sealed_at INTEGER NOT NULL,
    envelope TEXT NOT NULL,
    PRIMARY KEY (block_no)
);
