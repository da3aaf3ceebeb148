-- Kept output, in pieces.
CREATE TABLE output (
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    hostname TEXT NOT NULL CHECK (length(hostname) <= 253),
    stream TEXT NOT NULL CHECK (length(stream) <= 8),
    start_at INTEGER NOT NULL,
    data BLOB NOT NULL,
    stored_at INTEGER NOT NULL,
    live_seq INTEGER NOT NULL,
    PRIMARY KEY (task_id, hostname, stream, start_at)
);
CREATE INDEX output_stored_at ON output (stored_at);
CREATE INDEX output_live ON output (task_id, live_seq);
