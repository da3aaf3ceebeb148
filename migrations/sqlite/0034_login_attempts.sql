-- Failed log-ins by what they are counted for: an account from an address, or an address.
CREATE TABLE login_attempts (
    subject TEXT NOT NULL CHECK (length(subject) <= 255),
    failures INTEGER NOT NULL,
    last_failure_at INTEGER NOT NULL,
    known_at INTEGER,
    PRIMARY KEY (subject)
);
CREATE INDEX login_attempts_last_failure_at ON login_attempts (last_failure_at);
