-- Members that are in a group themselves: for good, with all their sessions, and while they are away.
CREATE TABLE member_groups (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT,
    joined_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, member_id, name)
) WITHOUT ROWID;

-- Names that still mean a member (its id) or a session (its key) for a while after it was renamed.
CREATE TABLE former_names (
    mesh_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    until_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, kind, subject, name)
) WITHOUT ROWID;
CREATE INDEX former_names_by_end ON former_names (until_ms);

-- The name that the client of a renamed session still brings along; another one than this is a new name.
ALTER TABLE sessions ADD COLUMN renamed_from TEXT;

-- A member that was removed, or has left: unlike a banned one its key may join again.
ALTER TABLE members ADD COLUMN removed_at_ms BIGINT;
