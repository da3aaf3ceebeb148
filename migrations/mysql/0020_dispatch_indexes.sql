-- Hosts that are to report again, and those that an admin accepted.
ALTER TABLE logs
    ADD KEY logs_behind (behind_since),
    ADD KEY logs_hold (hold);
-- A task's ended targets in order of finishing.
ALTER TABLE deliveries
    ADD KEY deliveries_final (task_id, final_seq, ordinal);
-- Ended tasks by age, for the retention.
ALTER TABLE dispatches
    ADD KEY dispatches_old (open, created_at);
