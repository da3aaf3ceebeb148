-- How each path stands to which an agent deployed, as its newest heartbeat tells it. `place` is the path's digest.
CREATE TABLE deploy_standings (
    agent_id VARCHAR(40) NOT NULL,
    place VARCHAR(64) NOT NULL,
    path TEXT NOT NULL,
    deployed VARCHAR(64) NOT NULL,
    commit_id VARCHAR(64),
    edited BIGINT NOT NULL,
    drifted BIGINT NOT NULL,
    PRIMARY KEY (agent_id, place)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
