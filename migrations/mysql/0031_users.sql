-- Accounts: one record under both documents' views.
CREATE TABLE users (
    id BIGINT NOT NULL,
    uuid VARCHAR(36) NOT NULL,
    username VARCHAR(150) NOT NULL,
    email VARCHAR(254),
    first_name VARCHAR(150) NOT NULL,
    last_name VARCHAR(150) NOT NULL,
    role VARCHAR(16) NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    is_active BIGINT NOT NULL,
    host_groups TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_login_at BIGINT,
    PRIMARY KEY (id),
    UNIQUE KEY users_uuid (uuid),
    UNIQUE KEY users_username (username),
    UNIQUE KEY users_email (email)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
