-- The log of each job, line by line, numbered from 1 without a gap.
CREATE TABLE job_lines (
    job_id BIGINT NOT NULL,
    id BIGINT NOT NULL,
    at BIGINT NOT NULL,
    host VARCHAR(253),
    line BLOB NOT NULL,
    PRIMARY KEY (job_id, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
