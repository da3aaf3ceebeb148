-- Integer ids that people see, given out once each.
CREATE TABLE counters (
    name TEXT NOT NULL CHECK (length(name) <= 32),
    last INTEGER NOT NULL,
    PRIMARY KEY (name)
);
INSERT INTO counters (name, last) VALUES ('users', 0);
