-- Events that an agent lost before they were taken in, and when that was last told.
ALTER TABLE logs ADD COLUMN gap_events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE logs ADD COLUMN gap_at INTEGER;
