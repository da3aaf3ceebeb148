-- What is known of git repositories: what opens them, sealed with the master key, and whose signature they need.
CREATE TABLE repositories (
    id TEXT NOT NULL CHECK (length(id) <= 36),
    url TEXT NOT NULL,
    url_digest TEXT NOT NULL CHECK (length(url_digest) <= 64),
    sealed BLOB,
    about TEXT,
    allowed_signers TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX repositories_url ON repositories (url_digest);
