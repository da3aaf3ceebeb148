-- Verified messages that could not be stored.
CREATE TABLE parked (
    jti VARCHAR(36) NOT NULL,
    agent_id VARCHAR(40) NOT NULL,
    body MEDIUMBLOB NOT NULL,
    error TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (jti)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
