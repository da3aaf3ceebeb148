-- Events about messages that this database does not know.
CREATE TABLE orphans (
    agent_id VARCHAR(40) NOT NULL,
    log_id VARCHAR(36) NOT NULL,
    seq BIGINT NOT NULL,
    event MEDIUMBLOB NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, log_id, seq),
    KEY orphans_received_at (received_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
