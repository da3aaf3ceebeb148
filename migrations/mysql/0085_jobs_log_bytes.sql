-- How large the log of each job is, in bytes, and whether some of it was not kept.
ALTER TABLE jobs ADD COLUMN log_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN log_cut BIGINT NOT NULL DEFAULT 0;
