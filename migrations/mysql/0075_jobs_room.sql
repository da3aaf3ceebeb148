-- Hooks and lines may be as long as their bounds say.
ALTER TABLE jobs MODIFY options MEDIUMTEXT NOT NULL;
ALTER TABLE job_lines MODIFY line MEDIUMBLOB NOT NULL;
