-- Integer ids that people see, given out once each.
CREATE TABLE counters (
    name VARCHAR(32) NOT NULL,
    last BIGINT NOT NULL,
    PRIMARY KEY (name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO counters (name, last) VALUES ('users', 0);
