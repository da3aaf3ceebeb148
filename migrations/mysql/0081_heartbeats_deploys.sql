-- The digest of what a heartbeat says of deployed paths: mostly it is the same as before, and nothing else is written.
ALTER TABLE heartbeats ADD COLUMN deploys VARCHAR(64) NOT NULL DEFAULT '';
