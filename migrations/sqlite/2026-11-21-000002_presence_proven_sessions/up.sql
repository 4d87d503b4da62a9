-- A session key that was proved once is opened by a proof only, also after a restart of the broker.
ALTER TABLE sessions ADD COLUMN proven BOOLEAN NOT NULL DEFAULT FALSE;
