-- Signed blocks over the entries, each naming the one before.
CREATE TABLE audit_blocks (
    block_no BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    head VARCHAR(64) NOT NULL,
    sealed_at BIGINT NOT NULL,
    envelope TEXT NOT NULL,
    PRIMARY KEY (block_no)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
