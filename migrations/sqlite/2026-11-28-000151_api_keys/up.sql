-- Keys of programs. `secret_hash` is the SHA-256 of the secret, which itself is never stored; `prefix` is its beginning, for people.
-- `capabilities` and `topic_scopes` are JSON lists.
CREATE TABLE api_keys (
    mesh_id TEXT NOT NULL,
    id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    label TEXT NOT NULL,
    prefix TEXT NOT NULL,
    secret_hash TEXT NOT NULL UNIQUE,
    capabilities TEXT NOT NULL,
    topic_scopes TEXT,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    last_used_at_ms BIGINT,
    revoked_at_ms BIGINT,
    PRIMARY KEY (mesh_id, id)
);
