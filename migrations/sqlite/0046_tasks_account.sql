-- As long as an account's name may be. SQLite changes no column: a new one takes the name.
DROP INDEX tasks_idempotency;
ALTER TABLE tasks RENAME COLUMN account TO account_before;
ALTER TABLE tasks ADD COLUMN account TEXT NOT NULL DEFAULT '' CHECK (length(account) <= 191);
UPDATE tasks SET account = account_before;
ALTER TABLE tasks DROP COLUMN account_before;
CREATE UNIQUE INDEX tasks_idempotency ON tasks (account, idempotency_key);
