-- Every version of the keyring, signed.
CREATE TABLE keyrings (
    version INTEGER NOT NULL,
    signed TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (version)
);
