-- SSH keys with which accounts sign approvals; each belongs to one account.
CREATE TABLE approver_keys (
    id VARCHAR(36) NOT NULL,
    user_id BIGINT NOT NULL,
    public_key TEXT NOT NULL,
    fingerprint VARCHAR(64) NOT NULL,
    comment VARCHAR(255) NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY approver_keys_fingerprint (fingerprint),
    KEY approver_keys_user_id (user_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
