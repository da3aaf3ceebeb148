-- How long each piece is, so that nobody reads the output itself to sum it up.
ALTER TABLE output ADD COLUMN size BIGINT NOT NULL DEFAULT 0,
    ADD KEY output_sizes (task_id, hostname, stream, start_at, size);
