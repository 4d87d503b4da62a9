-- What each session shares of its work: one row for each session, in place of the one before. `session` is its public name on the
-- wire, or `member:` and the id of a member for what is shared outside of a session. `row_no` is the place in the order of the
-- changes and the number in the index.
CREATE TABLE contexts (
    mesh_id TEXT NOT NULL,
    session TEXT COLLATE "C" NOT NULL,
    id TEXT NOT NULL,
    row_no BIGINT NOT NULL,
    member_id TEXT NOT NULL,
    peer_name TEXT NOT NULL,
    session_name TEXT NOT NULL,
    summary TEXT NOT NULL,
    files TEXT NOT NULL,
    findings TEXT NOT NULL,
    tags TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, session)
);
CREATE UNIQUE INDEX contexts_by_row ON contexts (row_no);
CREATE INDEX contexts_of_mesh ON contexts (mesh_id, row_no);
CREATE INDEX contexts_of_member ON contexts (mesh_id, member_id);
CREATE INDEX contexts_by_time ON contexts (updated_at_ms);

-- The words of each context, as `broker/src/search` makes them. Without the list of pending entries, as a search would have to
-- look through it.
CREATE TABLE __context_index (
    row_no BIGINT PRIMARY KEY NOT NULL,
    tokens TSVECTOR NOT NULL
);
CREATE INDEX __context_index_tokens ON __context_index USING gin (tokens) WITH (fastupdate = off);
