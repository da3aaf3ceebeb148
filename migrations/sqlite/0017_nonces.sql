-- Nonces given out for hellos.
CREATE TABLE nonces (
    nonce TEXT NOT NULL CHECK (length(nonce) <= 64),
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (nonce)
);
CREATE INDEX nonces_expires_at ON nonces (expires_at);
