-- Signed messages, each once however many hosts it is for.
CREATE TABLE messages (
    jti VARCHAR(36) NOT NULL,
    task_id VARCHAR(64) NOT NULL,
    payload_type VARCHAR(64) NOT NULL,
    keyid VARCHAR(64) NOT NULL,
    sig TEXT NOT NULL,
    body MEDIUMBLOB NOT NULL,
    exp BIGINT NOT NULL,
    PRIMARY KEY (jti),
    KEY messages_task (task_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
