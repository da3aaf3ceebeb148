-- The digest of what a heartbeat says of deployed paths: mostly it is the same as before, and nothing else is written.
ALTER TABLE heartbeats ADD COLUMN deploys TEXT NOT NULL DEFAULT '' CHECK (length(deploys) <= 64);
