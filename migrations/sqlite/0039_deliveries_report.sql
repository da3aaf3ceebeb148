-- The report in which the agent told the end.
ALTER TABLE deliveries ADD COLUMN report TEXT CHECK (length(report) <= 36);
