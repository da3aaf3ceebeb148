-- Hosts that are to report again, and those that an admin accepted.
CREATE INDEX logs_behind ON logs (behind_since);
CREATE INDEX logs_hold ON logs (hold);
-- A task's ended targets in order of finishing.
CREATE INDEX deliveries_final ON deliveries (task_id, final_seq, ordinal);
-- Ended tasks by age, for the retention.
CREATE INDEX dispatches_old ON dispatches (open, created_at);
