-- Verified messages that could not be stored.
CREATE TABLE parked (
    jti TEXT NOT NULL CHECK (length(jti) <= 36),
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    body BLOB NOT NULL,
    error TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (jti)
);
