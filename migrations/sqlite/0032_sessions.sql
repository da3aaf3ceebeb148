-- Log-ins. A token names one, and is worth nothing once it has ended.
CREATE TABLE sessions (
    sid TEXT NOT NULL CHECK (length(sid) <= 36),
    user_id INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (length(kind) <= 16),
    current_jti TEXT NOT NULL CHECK (length(current_jti) <= 36),
    peer TEXT NOT NULL CHECK (length(peer) <= 64),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    ended_at INTEGER,
    PRIMARY KEY (sid)
);
CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);
