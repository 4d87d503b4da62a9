-- What each session shares of its work: one row for each session, in place of the one before. `session` is its public name on the
-- wire, or `member:` and the id of a member for what is shared outside of a session. `row_no` is the place in the order of the
-- changes and the number in the index.
CREATE TABLE contexts (
    mesh_id TEXT NOT NULL,
    session TEXT NOT NULL,
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

-- The words of each context, as `broker/src/search` makes them: the tokenizer cuts at spaces only. Words of a context that is replaced or
-- deleted are taken out of the pages at once.
CREATE VIRTUAL TABLE __context_index USING fts5(tokens, tokenize = "ascii tokenchars '_'");
INSERT INTO __context_index(__context_index, rank) VALUES ('secure-delete', 1);
