-- Events about messages that this database does not know.
CREATE TABLE orphans (
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    log_id TEXT NOT NULL CHECK (length(log_id) <= 36),
    seq INTEGER NOT NULL,
    event BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id, log_id, seq)
);
CREATE INDEX orphans_received_at ON orphans (received_at);
