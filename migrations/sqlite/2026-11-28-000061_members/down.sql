ALTER TABLE members DROP COLUMN removed_at_ms;
ALTER TABLE sessions DROP COLUMN renamed_from;
DROP TABLE former_names;
DROP TABLE member_groups;
