-- One per message and host: what is wanted, and what the agent last said.
CREATE TABLE deliveries (
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    hostname TEXT NOT NULL CHECK (length(hostname) <= 253),
    ordinal INTEGER NOT NULL,
    agent_id TEXT CHECK (length(agent_id) <= 40),
    jti TEXT CHECK (length(jti) <= 36),
    batch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (length(state) <= 16),
    reason TEXT NOT NULL CHECK (length(reason) <= 255),
    inferred INTEGER NOT NULL,
    deadline_at INTEGER NOT NULL,
    send_at INTEGER,
    sends INTEGER NOT NULL,
    cancel_at INTEGER,
    cancel_send_at INTEGER,
    accepted_at INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    exit_code INTEGER,
    term_signal INTEGER,
    final_seq INTEGER,
    live_seq INTEGER NOT NULL,
    PRIMARY KEY (task_id, hostname)
);
CREATE UNIQUE INDEX deliveries_jti_agent ON deliveries (jti, agent_id);
CREATE INDEX deliveries_agent ON deliveries (agent_id, state, jti);
CREATE INDEX deliveries_live ON deliveries (task_id, live_seq, ordinal);
CREATE INDEX deliveries_send ON deliveries (send_at);
CREATE INDEX deliveries_cancel ON deliveries (cancel_send_at);
CREATE INDEX deliveries_deadline ON deliveries (state, deadline_at);
