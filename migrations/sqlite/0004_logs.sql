-- How far each agent's journal was taken in, and what holds dispatch to it.
CREATE TABLE logs (
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    log_id TEXT NOT NULL CHECK (length(log_id) <= 36),
    seq INTEGER NOT NULL,
    chain TEXT NOT NULL CHECK (length(chain) <= 64),
    hold TEXT NOT NULL CHECK (length(hold) <= 16),
    hold_reason TEXT NOT NULL CHECK (length(hold_reason) <= 255),
    catch_up_to INTEGER NOT NULL,
    start_id TEXT NOT NULL CHECK (length(start_id) <= 36),
    report_n INTEGER NOT NULL,
    behind_head INTEGER,
    behind_since INTEGER,
    resumed_at INTEGER,
    locked INTEGER NOT NULL,
    PRIMARY KEY (agent_id)
);
