-- Logs that an agent gave up: who comes back with one was rolled back.
CREATE TABLE past_logs (
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    log_id TEXT NOT NULL CHECK (length(log_id) <= 36),
    PRIMARY KEY (agent_id, log_id)
);
