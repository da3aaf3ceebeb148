-- Tokens for programs, known by the SHA-256 of their text.
CREATE TABLE api_tokens (
    hash VARCHAR(64) NOT NULL,
    id VARCHAR(36) NOT NULL,
    user_id BIGINT NOT NULL,
    name VARCHAR(128) NOT NULL,
    role VARCHAR(16) NOT NULL,
    scope TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    PRIMARY KEY (hash),
    UNIQUE KEY api_tokens_id (id),
    KEY api_tokens_user_id (user_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
