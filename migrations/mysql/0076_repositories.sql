-- What is known of git repositories: what opens them, sealed with the master key, and whose signature they need.
CREATE TABLE repositories (
    id VARCHAR(36) NOT NULL,
    url TEXT NOT NULL,
    url_digest VARCHAR(64) NOT NULL,
    sealed MEDIUMBLOB,
    about MEDIUMTEXT,
    allowed_signers MEDIUMTEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY repositories_url (url_digest)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
