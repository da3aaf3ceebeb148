-- Signed messages, each once however many hosts it is for.
CREATE TABLE messages (
    jti TEXT NOT NULL CHECK (length(jti) <= 36),
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    payload_type TEXT NOT NULL CHECK (length(payload_type) <= 64),
    keyid TEXT NOT NULL CHECK (length(keyid) <= 64),
    sig TEXT NOT NULL,
    body BLOB NOT NULL,
    exp INTEGER NOT NULL,
    PRIMARY KEY (jti)
);
CREATE INDEX messages_task ON messages (task_id);
