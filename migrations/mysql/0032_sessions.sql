-- Log-ins. A token names one, and is worth nothing once it has ended.
CREATE TABLE sessions (
    sid VARCHAR(36) NOT NULL,
    user_id BIGINT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    current_jti VARCHAR(36) NOT NULL,
    peer VARCHAR(64) NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (sid),
    KEY sessions_user_id (user_id),
    KEY sessions_expires_at (expires_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
