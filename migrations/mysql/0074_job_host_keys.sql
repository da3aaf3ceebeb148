-- The host key that each host and port showed first, and must show again.
CREATE TABLE job_host_keys (
    host VARCHAR(253) NOT NULL,
    port BIGINT NOT NULL,
    host_key TEXT NOT NULL,
    job_id BIGINT NOT NULL,
    pinned_at BIGINT NOT NULL,
    PRIMARY KEY (host, port)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
