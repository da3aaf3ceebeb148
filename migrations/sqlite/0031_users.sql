-- Accounts: one record under both documents' views.
CREATE TABLE users (
    id INTEGER NOT NULL,
    uuid TEXT NOT NULL CHECK (length(uuid) <= 36),
    username TEXT NOT NULL CHECK (length(username) <= 150),
    email TEXT CHECK (length(email) <= 254),
    first_name TEXT NOT NULL CHECK (length(first_name) <= 150),
    last_name TEXT NOT NULL CHECK (length(last_name) <= 150),
    role TEXT NOT NULL CHECK (length(role) <= 16),
    password_hash TEXT NOT NULL CHECK (length(password_hash) <= 255),
    is_active INTEGER NOT NULL,
    host_groups TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    last_login_at INTEGER,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX users_uuid ON users (uuid);
CREATE UNIQUE INDEX users_username ON users (username);
CREATE UNIQUE INDEX users_email ON users (email);
