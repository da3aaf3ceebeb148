-- Jobs that wait for people to agree, and what was deployed where, to go back to it.
ALTER TABLE jobs ADD COLUMN awaits BIGINT NOT NULL DEFAULT 0;
CREATE INDEX job_targets_commit ON job_targets (commit_id);
