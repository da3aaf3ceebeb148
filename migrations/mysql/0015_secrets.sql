-- Sealed with the master key.
CREATE TABLE secrets (
    name VARCHAR(128) NOT NULL,
    sealed MEDIUMBLOB NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
