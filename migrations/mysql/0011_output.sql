-- Kept output, in pieces.
CREATE TABLE output (
    task_id VARCHAR(64) NOT NULL,
    hostname VARCHAR(253) NOT NULL,
    stream VARCHAR(8) NOT NULL,
    start_at BIGINT NOT NULL,
    data MEDIUMBLOB NOT NULL,
    stored_at BIGINT NOT NULL,
    live_seq BIGINT NOT NULL,
    PRIMARY KEY (task_id, hostname, stream, start_at),
    KEY output_stored_at (stored_at),
    KEY output_live (task_id, live_seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
