-- What needs the approval of how many others; without a group, what is for all hosts.
CREATE TABLE approval_rules (
    id VARCHAR(36) NOT NULL,
    host_group VARCHAR(128),
    approvals BIGINT NOT NULL,
    kinds VARCHAR(255) NOT NULL,
    expires_in BIGINT NOT NULL,
    made_by VARCHAR(150) NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
