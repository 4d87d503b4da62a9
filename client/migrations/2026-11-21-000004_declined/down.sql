ALTER TABLE answers DROP COLUMN declined;
