-- What members share: one row for each file, and for each upload that is not finished (`ready_at_ms` is empty then). The bytes lie in
-- the store of files; `size_bytes` is what is reserved until the upload is finished.
CREATE TABLE files (
    mesh_id TEXT NOT NULL,
    id TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    owner_name TEXT NOT NULL,
    client_upload_id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    tags TEXT NOT NULL,
    targets TEXT NOT NULL,
    content_type TEXT,
    encryption TEXT,
    sealed_meta TEXT,
    regrant BOOLEAN NOT NULL,
    persistent BOOLEAN NOT NULL,
    ttl_ms BIGINT NOT NULL,
    at_most BOOLEAN NOT NULL,
    size_bytes BIGINT NOT NULL,
    received_bytes BIGINT NOT NULL,
    sha256 TEXT,
    lost BOOLEAN NOT NULL,
    created_at_ms BIGINT NOT NULL,
    ready_at_ms BIGINT,
    expires_at_ms BIGINT,
    PRIMARY KEY (mesh_id, id)
);
CREATE UNIQUE INDEX files_by_upload ON files (mesh_id, owner_id, client_upload_id);
CREATE INDEX files_by_time ON files (mesh_id, ready_at_ms, id);
CREATE INDEX files_by_end ON files (expires_at_ms, mesh_id);

-- The objects of the store that have the bytes of a file, each with its place in the file.
CREATE TABLE file_parts (
    mesh_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    start_at BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    object TEXT NOT NULL,
    PRIMARY KEY (mesh_id, file_id, start_at)
);

-- Whom a file is for: `*`, `@group`, `m:member`; `!member` is one whose access was revoked.
CREATE TABLE file_readers (
    mesh_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    reader TEXT NOT NULL,
    PRIMARY KEY (mesh_id, file_id, reader)
);
CREATE INDEX file_readers_by_reader ON file_readers (mesh_id, reader);

-- The key of a sealed file, sealed for each reader's key.
CREATE TABLE file_keys (
    mesh_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    pubkey TEXT NOT NULL,
    member_id TEXT NOT NULL,
    sealed_key TEXT NOT NULL,
    PRIMARY KEY (mesh_id, file_id, pubkey)
);

-- Who asked for a file, and when.
CREATE TABLE file_accesses (
    mesh_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    member_id TEXT NOT NULL,
    peer_name TEXT NOT NULL,
    accessed_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, file_id, number)
);

-- What the mesh (`member_id` is empty) and each member have, uploads that are not finished included.
CREATE TABLE file_totals (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    files BIGINT NOT NULL,
    uploads BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, member_id)
);
