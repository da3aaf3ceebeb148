-- Agents' reports that told how something ended, as they were signed.
CREATE TABLE reports (
    agent_id VARCHAR(40) NOT NULL,
    jti VARCHAR(36) NOT NULL,
    keyid VARCHAR(64) NOT NULL,
    sig TEXT NOT NULL,
    body MEDIUMBLOB NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, jti),
    KEY reports_received_at (received_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
