-- How each command ended in the agent's words.
CREATE TABLE results (
    task_id VARCHAR(64) NOT NULL,
    hostname VARCHAR(253) NOT NULL,
    stdout_bytes BIGINT NOT NULL,
    stdout_omitted_from BIGINT,
    stdout_omitted_bytes BIGINT NOT NULL,
    stdout_sha256 VARCHAR(64) NOT NULL,
    stderr_bytes BIGINT NOT NULL,
    stderr_omitted_from BIGINT,
    stderr_omitted_bytes BIGINT NOT NULL,
    stderr_sha256 VARCHAR(64) NOT NULL,
    killed BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    PRIMARY KEY (task_id, hostname)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
