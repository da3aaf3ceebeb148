-- Logs that an agent gave up: who comes back with one was rolled back.
CREATE TABLE past_logs (
    agent_id VARCHAR(40) NOT NULL,
    log_id VARCHAR(36) NOT NULL,
    PRIMARY KEY (agent_id, log_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
