-- Every host that somebody added or that enrolled.
CREATE TABLE servers (
    hostname TEXT NOT NULL CHECK (length(hostname) <= 253),
    ip TEXT NOT NULL CHECK (length(ip) <= 64),
    grp TEXT NOT NULL CHECK (length(grp) <= 128),
    agent_id TEXT CHECK (length(agent_id) <= 40),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (hostname)
);
CREATE INDEX servers_grp ON servers (grp);
