-- What a job needs to log in, sealed with the master key, for a run and for retries.
CREATE TABLE job_secrets (
    job_id BIGINT NOT NULL,
    sealed MEDIUMBLOB NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (job_id),
    KEY job_secrets_expires (expires_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
