-- Who does a piece of periodic work now.
CREATE TABLE leases (
    name VARCHAR(64) NOT NULL,
    holder VARCHAR(64) NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
