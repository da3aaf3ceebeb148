-- 0 once the body was emptied: nobody may start it any more, and it may hold secrets.
ALTER TABLE messages ADD COLUMN kept BIGINT NOT NULL DEFAULT 1, ADD KEY messages_kept (kept, exp);
