-- How many hosts go first as a canary, how long is waited between batches, and from when on the next one may go.
ALTER TABLE dispatches ADD COLUMN canary BIGINT NOT NULL DEFAULT 0;
ALTER TABLE dispatches ADD COLUMN pause BIGINT NOT NULL DEFAULT 0;
ALTER TABLE dispatches ADD COLUMN next_at BIGINT;
