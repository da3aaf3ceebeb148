-- Who agreed to what, each person once; with an SSH signature where one was given.
CREATE TABLE approvals (
    task_id VARCHAR(64) NOT NULL,
    person VARCHAR(150) NOT NULL,
    user_id BIGINT,
    key_id VARCHAR(36),
    signature TEXT,
    given_at BIGINT NOT NULL,
    PRIMARY KEY (task_id, person)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
