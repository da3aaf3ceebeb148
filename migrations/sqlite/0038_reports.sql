-- Agents' reports that told how something ended, as they were signed.
CREATE TABLE reports (
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    jti TEXT NOT NULL CHECK (length(jti) <= 36),
    keyid TEXT NOT NULL CHECK (length(keyid) <= 64),
    sig TEXT NOT NULL,
    body BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id, jti)
);
CREATE INDEX reports_received_at ON reports (received_at);
