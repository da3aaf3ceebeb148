-- Who agreed to what, each person once; with an SSH signature where one was given.
CREATE TABLE approvals (
    task_id TEXT NOT NULL CHECK (length(task_id) <= 64),
    person TEXT NOT NULL CHECK (length(person) <= 150),
    user_id INTEGER,
    key_id TEXT CHECK (length(key_id) <= 36),
    signature TEXT,
    given_at INTEGER NOT NULL,
    PRIMARY KEY (task_id, person)
);
