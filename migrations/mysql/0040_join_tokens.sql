-- Tokens that let new hosts in. The secret's verifier is sealed with the master key.
CREATE TABLE join_tokens (
    id VARCHAR(32) NOT NULL,
    sealed BLOB NOT NULL,
    fingerprint VARCHAR(64) NOT NULL,
    grp VARCHAR(128),
    hostname VARCHAR(253),
    max_uses BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by VARCHAR(255) NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
-- Which agents a token let in: each counts once.
CREATE TABLE join_token_uses (
    token_id VARCHAR(32) NOT NULL,
    agent_id VARCHAR(40) NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (token_id, agent_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
