-- Who does a piece of periodic work now.
CREATE TABLE leases (
    name TEXT NOT NULL CHECK (length(name) <= 64),
    holder TEXT NOT NULL CHECK (length(holder) <= 64),
    lease_until INTEGER NOT NULL,
    PRIMARY KEY (name)
);
