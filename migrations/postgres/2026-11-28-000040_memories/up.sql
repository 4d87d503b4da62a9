-- What meshes remember. `row_no` is the place of a memory in the order of all of them and its number in the index; times of one
-- mesh never go back in that order. `digest` finds what the same member has stored before.
CREATE TABLE memories (
    mesh_id TEXT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    row_no BIGINT NOT NULL,
    content TEXT NOT NULL,
    tags TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    digest TEXT NOT NULL,
    member_id TEXT NOT NULL,
    author_name TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, id)
);
CREATE UNIQUE INDEX memories_by_row ON memories (row_no);
CREATE UNIQUE INDEX memories_by_digest ON memories (mesh_id, member_id, digest);
CREATE INDEX memories_by_time ON memories (mesh_id, created_at_ms, row_no);

-- What a mesh has in all, and what each member has in it (the row with an empty `member_id` is the mesh).
CREATE TABLE memory_totals (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    memories BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    last_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, member_id)
);

-- The words of each memory, as `broker/src/search` makes them. Without the list of pending entries, as a search would have to
-- look through it.
CREATE TABLE __memory_index (
    row_no BIGINT PRIMARY KEY NOT NULL,
    tokens TSVECTOR NOT NULL
);
CREATE INDEX __memory_index_tokens ON __memory_index USING gin (tokens) WITH (fastupdate = off);
