-- Who did what: each entry as it is exported, with what it is looked for by. A block seals it within about a second.
CREATE TABLE audit_entries (
    id VARCHAR(36) NOT NULL,
    at BIGINT NOT NULL,
    who VARCHAR(191) NOT NULL,
    action VARCHAR(64) NOT NULL,
    object VARCHAR(255) NOT NULL,
    result VARCHAR(16) NOT NULL,
    entry MEDIUMTEXT NOT NULL,
    block_no BIGINT,
    PRIMARY KEY (id),
    KEY audit_entries_at (at, id),
    KEY audit_entries_block_no (block_no, at, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
