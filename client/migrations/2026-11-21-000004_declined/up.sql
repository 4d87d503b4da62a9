-- The answer says that there will be none.
ALTER TABLE answers ADD COLUMN declined BOOLEAN NOT NULL DEFAULT 0;
