-- Whether a host's end is the controller's conclusion: the host's own word still replaces it.
ALTER TABLE job_targets ADD COLUMN inferred BIGINT NOT NULL DEFAULT 0;
