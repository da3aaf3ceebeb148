-- Tickets for one stream each, known by the SHA-256 of their text.
CREATE TABLE tickets (
    hash VARCHAR(64) NOT NULL,
    whose VARCHAR(80) NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (hash),
    KEY tickets_expires_at (expires_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
