-- Labels of servers.
CREATE TABLE server_labels (
    hostname VARCHAR(253) NOT NULL,
    name VARCHAR(63) NOT NULL,
    value VARCHAR(128) NOT NULL,
    PRIMARY KEY (hostname, name),
    KEY server_labels_name (name, value)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
