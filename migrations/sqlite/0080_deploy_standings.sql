-- How each path stands to which an agent deployed, as its newest heartbeat tells it. `place` is the path's digest.
CREATE TABLE deploy_standings (
    agent_id TEXT NOT NULL CHECK (length(agent_id) <= 40),
    place TEXT NOT NULL CHECK (length(place) <= 64),
    path TEXT NOT NULL,
    deployed TEXT NOT NULL CHECK (length(deployed) <= 64),
    commit_id TEXT CHECK (length(commit_id) <= 64),
    edited INTEGER NOT NULL,
    drifted INTEGER NOT NULL,
    PRIMARY KEY (agent_id, place)
);
