-- Every host that somebody added or that enrolled.
CREATE TABLE servers (
    hostname VARCHAR(253) NOT NULL,
    ip VARCHAR(64) NOT NULL,
    grp VARCHAR(128) NOT NULL,
    agent_id VARCHAR(40),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (hostname),
    KEY servers_grp (grp)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
