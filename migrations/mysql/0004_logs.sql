-- How far each agent's journal was taken in.
CREATE TABLE logs (
    agent_id VARCHAR(40) NOT NULL,
    log_id VARCHAR(36),
    seq BIGINT NOT NULL,
    chain VARCHAR(64) NOT NULL,
    log_known_since BIGINT NOT NULL,
    hold VARCHAR(16) NOT NULL,
    hold_reason VARCHAR(255) NOT NULL,
    start_id VARCHAR(36),
    report_n BIGINT NOT NULL,
    head_above_since BIGINT,
    resumed_at BIGINT,
    locked BIGINT NOT NULL,
    PRIMARY KEY (agent_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
