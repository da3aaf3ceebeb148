-- Events that an agent lost before they were taken in, and when that was last told.
ALTER TABLE logs ADD COLUMN gap_events BIGINT NOT NULL DEFAULT 0, ADD COLUMN gap_at BIGINT;
