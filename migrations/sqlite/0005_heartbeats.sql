-- The newest heartbeat of each agent.
CREATE TABLE heartbeats (
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    start_id TEXT NOT NULL CHECK (length(start_id) <= 36),
    n INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    clock_offset_ms INTEGER NOT NULL,
    log_id TEXT NOT NULL CHECK (length(log_id) <= 36),
    head INTEGER NOT NULL,
    chain TEXT NOT NULL CHECK (length(chain) <= 64),
    version TEXT NOT NULL CHECK (length(version) <= 64),
    features TEXT NOT NULL,
    keyring INTEGER NOT NULL,
    stopping INTEGER NOT NULL,
    busy TEXT CHECK (length(busy) <= 32),
    narrowed INTEGER NOT NULL,
    isolation TEXT NOT NULL CHECK (length(isolation) <= 32),
    waiting INTEGER NOT NULL,
    running INTEGER NOT NULL,
    cpu_usage REAL NOT NULL,
    memory_usage REAL NOT NULL,
    disk_usage REAL NOT NULL,
    load_average TEXT NOT NULL CHECK (length(load_average) <= 64),
    uptime INTEGER NOT NULL,
    boot_id TEXT NOT NULL CHECK (length(boot_id) <= 64),
    refused TEXT NOT NULL,
    PRIMARY KEY (agent_id)
);
CREATE INDEX heartbeats_received_at ON heartbeats (received_at);
