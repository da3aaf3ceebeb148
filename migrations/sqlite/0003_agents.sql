-- Every key that an agent ever came with.
CREATE TABLE agents (
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    hostname TEXT NOT NULL CHECK (length(hostname) <= 253),
    public_key TEXT NOT NULL,
    standing TEXT NOT NULL CHECK (length(standing) <= 16),
    wanted_group TEXT CHECK (length(wanted_group) <= 128),
    sealing_key TEXT CHECK (length(sealing_key) <= 128),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id)
);
CREATE INDEX agents_hostname ON agents (hostname);
CREATE INDEX agents_updated_at ON agents (updated_at);
