-- The log of each job, line by line, numbered from 1 without a gap.
CREATE TABLE job_lines (
    job_id INTEGER NOT NULL,
    id INTEGER NOT NULL,
    at INTEGER NOT NULL,
    host TEXT CHECK (length(host) <= 253),
    line BLOB NOT NULL,
    PRIMARY KEY (job_id, id)
);
