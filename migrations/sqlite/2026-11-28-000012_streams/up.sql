-- Streams: logs of entries with offsets from 0. `first_offset` is that of the oldest entry that is kept, `next_offset` that of the
-- next one to be published; between them there is no hole. Entries and bytes are counted here, because counting takes too long.
CREATE TABLE streams (
    mesh_id TEXT NOT NULL,
    name TEXT NOT NULL,
    id TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_by_name TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    first_offset BIGINT NOT NULL,
    next_offset BIGINT NOT NULL,
    published_at_ms BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    keep_entries BIGINT NOT NULL,
    keep_bytes BIGINT NOT NULL,
    keep_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, name)
);
CREATE UNIQUE INDEX streams_by_id ON streams (mesh_id, id);

CREATE TABLE stream_entries (
    mesh_id TEXT NOT NULL,
    stream_id TEXT NOT NULL,
    place BIGINT NOT NULL,
    data TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    published_by TEXT NOT NULL,
    published_by_name TEXT NOT NULL,
    session_id TEXT NOT NULL,
    published_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, stream_id, place)
);

-- How far a member has come in a stream, under a name of its own.
CREATE TABLE stream_consumers (
    mesh_id TEXT NOT NULL,
    stream_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    name TEXT NOT NULL,
    next_offset BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, stream_id, member_id, name)
) WITHOUT ROWID;

-- What all streams of a mesh hold.
CREATE TABLE stream_heads (
    mesh_id TEXT PRIMARY KEY NOT NULL,
    streams BIGINT NOT NULL,
    bytes BIGINT NOT NULL
) WITHOUT ROWID;
