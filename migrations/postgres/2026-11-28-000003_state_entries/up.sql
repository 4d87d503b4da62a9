-- Shared state. A deleted key stays as a tombstone, so that readers who were away learn of it; `revision` orders the writes of
-- a mesh, and each write has its own. Values may be large, so they stand in an ordinary table.
CREATE TABLE state_entries (
    mesh_id TEXT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    value TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    version BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    updated_by_name TEXT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    deleted BOOLEAN NOT NULL,
    PRIMARY KEY (mesh_id, name)
);
CREATE UNIQUE INDEX state_entries_by_revision ON state_entries (mesh_id, revision);
CREATE INDEX state_entries_by_expiry ON state_entries (mesh_id, expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE INDEX state_entries_tombstones ON state_entries (mesh_id, revision) WHERE deleted;

-- What a mesh has in all: counted here, because counting a hundred thousand rows for each write would take too long.
CREATE TABLE state_heads (
    mesh_id TEXT PRIMARY KEY NOT NULL,
    revision BIGINT NOT NULL,
    forgotten_revision BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    tombstones BIGINT NOT NULL
);

-- What each member wrote last.
CREATE TABLE state_members (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    entries BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, member_id)
);
