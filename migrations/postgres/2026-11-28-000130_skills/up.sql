-- What members teach each other: one row for each skill with what its newest version says about it. `row_no` is the number in the
-- index, `size_bytes` counts all its versions.
CREATE TABLE skills (
    mesh_id TEXT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    id TEXT NOT NULL,
    row_no BIGINT NOT NULL,
    owner_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,
    author_id TEXT NOT NULL,
    author_name TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, name)
);
CREATE UNIQUE INDEX skills_by_row ON skills (row_no);

-- The texts, with the key and the signature of who wrote each.
CREATE TABLE skill_versions (
    mesh_id TEXT NOT NULL,
    skill_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    description TEXT NOT NULL,
    instructions TEXT NOT NULL,
    tags TEXT NOT NULL,
    manifest TEXT,
    digest TEXT NOT NULL,
    author_id TEXT NOT NULL,
    author_name TEXT NOT NULL,
    author_pubkey TEXT NOT NULL,
    signature TEXT,
    signed_at_ms BIGINT,
    size_bytes BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, skill_id, version)
);

-- The words of name, description and tags of each skill, as `broker/src/search` makes them. Without the list of pending entries, as a
-- search would have to look through it.
CREATE TABLE __skill_index (
    row_no BIGINT PRIMARY KEY NOT NULL,
    tokens TSVECTOR NOT NULL
);
CREATE INDEX __skill_index_tokens ON __skill_index USING gin (tokens) WITH (fastupdate = off);
