-- Every version of the keyring, signed.
CREATE TABLE keyrings (
    version BIGINT NOT NULL,
    signed TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (version)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
