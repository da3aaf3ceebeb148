-- Failed log-ins by what they are counted for: an account from an address, or an address.
CREATE TABLE login_attempts (
    subject VARCHAR(255) NOT NULL,
    failures BIGINT NOT NULL,
    last_failure_at BIGINT NOT NULL,
    known_at BIGINT,
    PRIMARY KEY (subject),
    KEY login_attempts_last_failure_at (last_failure_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
