-- How long each piece is, so that nobody reads the output itself to sum it up.
ALTER TABLE output ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
CREATE INDEX output_sizes ON output (task_id, hostname, stream, start_at, size);
