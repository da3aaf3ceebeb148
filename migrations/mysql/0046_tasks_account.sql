-- As long as an account's name may be.
ALTER TABLE tasks MODIFY account VARCHAR(191) NOT NULL;
