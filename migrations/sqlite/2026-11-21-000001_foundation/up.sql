CREATE TABLE broker_meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE meshes (
    id TEXT NOT NULL PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    owner_pubkey TEXT NOT NULL,
    self_editable TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    archived_at_ms BIGINT
);

-- A banned member keeps its row, so that its key cannot enrol again.
CREATE TABLE members (
    id TEXT NOT NULL PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES meshes (id),
    pubkey TEXT NOT NULL,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    role_tag TEXT,
    default_groups TEXT NOT NULL,
    message_mode TEXT NOT NULL,
    grants TEXT NOT NULL,
    joined_at_ms BIGINT NOT NULL,
    last_seen_at_ms BIGINT,
    revoked_at_ms BIGINT,
    UNIQUE (mesh_id, pubkey)
);

-- `token_hash` is the SHA-256 of a v1 token; the token itself is never stored.
CREATE TABLE invites (
    id TEXT NOT NULL PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES meshes (id),
    version INTEGER NOT NULL,
    code TEXT UNIQUE,
    token_hash TEXT UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    max_uses INTEGER NOT NULL,
    used_count INTEGER NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    created_by_key TEXT NOT NULL,
    revoked_at_ms BIGINT,
    canonical TEXT NOT NULL,
    signature TEXT NOT NULL,
    preset TEXT
);
CREATE INDEX invites_by_mesh ON invites (mesh_id, created_at_ms);

CREATE TABLE sessions (
    mesh_id TEXT NOT NULL,
    session_key TEXT NOT NULL,
    member_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    cwd TEXT NOT NULL,
    hostname TEXT,
    groups TEXT NOT NULL,
    profile TEXT NOT NULL,
    visible BOOLEAN NOT NULL,
    summary TEXT,
    status TEXT NOT NULL,
    stats TEXT NOT NULL,
    first_seen_at_ms BIGINT NOT NULL,
    last_seen_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, session_key)
);
CREATE INDEX sessions_by_last_seen ON sessions (mesh_id, last_seen_at_ms);

CREATE TABLE member_stats (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL PRIMARY KEY,
    messages_in BIGINT NOT NULL,
    messages_out BIGINT NOT NULL,
    tool_calls BIGINT NOT NULL,
    errors BIGINT NOT NULL
);

-- No foreign keys on the two tables of the hot path: the journal is their only writer and writes both in one transaction.
CREATE TABLE messages (
    mesh_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    id TEXT NOT NULL,
    sender_member_id TEXT NOT NULL,
    sender_key TEXT NOT NULL,
    sender_member_key TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    target_spec TEXT NOT NULL,
    priority INTEGER NOT NULL,
    nonce TEXT NOT NULL,
    ciphertext TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    client_message_id TEXT,
    request_fingerprint TEXT,
    reply_to_id TEXT,
    subtype TEXT,
    topic_id TEXT,
    topic_name TEXT,
    body_version INTEGER NOT NULL,
    trace_id TEXT,
    trace_hop INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, seq)
);
CREATE UNIQUE INDEX messages_by_id ON messages (mesh_id, id);
CREATE UNIQUE INDEX messages_by_client_id ON messages (mesh_id, sender_member_id, client_message_id)
    WHERE client_message_id IS NOT NULL;
CREATE INDEX messages_by_topic ON messages (mesh_id, topic_id, seq) WHERE topic_id IS NOT NULL;
CREATE INDEX messages_by_expiry ON messages (expires_at_ms);

CREATE TABLE deliveries (
    mesh_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    recipient_key TEXT NOT NULL,
    recipient_kind INTEGER NOT NULL,
    member_id TEXT NOT NULL,
    priority INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    stage INTEGER NOT NULL,
    stage_at_ms BIGINT,
    route TEXT,
    PRIMARY KEY (mesh_id, seq, recipient_key)
) WITHOUT ROWID;
-- A queue per recipient and urgency in sending order; rows leave it with their first acknowledgement.
CREATE INDEX deliveries_pending ON deliveries (mesh_id, recipient_key, priority, seq) WHERE stage = 0;

CREATE TABLE topics (
    id TEXT NOT NULL PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES meshes (id),
    name TEXT NOT NULL,
    description TEXT,
    visibility TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    UNIQUE (mesh_id, name)
);

CREATE TABLE topic_members (
    topic_id TEXT NOT NULL REFERENCES topics (id) ON DELETE CASCADE,
    member_id TEXT NOT NULL,
    role TEXT NOT NULL,
    joined_at_ms BIGINT NOT NULL,
    last_read_seq BIGINT NOT NULL DEFAULT 0,
    last_read_at_ms BIGINT,
    PRIMARY KEY (topic_id, member_id)
);
