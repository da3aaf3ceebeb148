-- A cursor's row is locked by the statement that reads it.
ALTER TABLE logs DROP COLUMN locked;
