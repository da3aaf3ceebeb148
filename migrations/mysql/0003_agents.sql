-- Every key that an agent ever came with.
CREATE TABLE agents (
    agent_id VARCHAR(40) NOT NULL,
    hostname VARCHAR(253) NOT NULL,
    public_key TEXT NOT NULL,
    standing VARCHAR(16) NOT NULL,
    wanted_group VARCHAR(128),
    sealing_key VARCHAR(128),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id),
    KEY agents_updated_at (updated_at),
    KEY agents_hostname (hostname)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
