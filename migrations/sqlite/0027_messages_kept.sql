-- 0 once the body was emptied: nobody may start it any more, and it may hold secrets.
ALTER TABLE messages ADD COLUMN kept INTEGER NOT NULL DEFAULT 1;
CREATE INDEX messages_kept ON messages (kept, exp);
