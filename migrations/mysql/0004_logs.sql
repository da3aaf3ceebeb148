-- How far each agent's journal was taken in, and what holds dispatch to it.
CREATE TABLE logs (
    agent_id VARCHAR(40) NOT NULL,
    log_id VARCHAR(36) NOT NULL,
    seq BIGINT NOT NULL,
    chain VARCHAR(64) NOT NULL,
    hold VARCHAR(16) NOT NULL,
    hold_reason VARCHAR(255) NOT NULL,
    catch_up_to BIGINT NOT NULL,
    start_id VARCHAR(36) NOT NULL,
    report_n BIGINT NOT NULL,
    behind_head BIGINT,
    behind_since BIGINT,
    resumed_at BIGINT,
    locked BIGINT NOT NULL,
    PRIMARY KEY (agent_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
