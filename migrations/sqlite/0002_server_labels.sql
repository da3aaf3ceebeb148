-- Labels of servers.
CREATE TABLE server_labels (
    hostname TEXT NOT NULL CHECK (length(hostname) <= 253),
    name TEXT NOT NULL CHECK (length(name) <= 63),
    value TEXT NOT NULL CHECK (length(value) <= 128),
    PRIMARY KEY (hostname, name)
);
CREATE INDEX server_labels_name ON server_labels (name, value);
