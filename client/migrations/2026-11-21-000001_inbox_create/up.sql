-- One row per message of the member, whoever of its sessions received it.
CREATE TABLE messages (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    client_message_id TEXT,
    sender_pubkey TEXT NOT NULL,
    -- The sender's member key, or its only key when the broker does not say the member.
    sender_member TEXT NOT NULL,
    sender_name TEXT,
    target_spec TEXT,
    kind TEXT NOT NULL,
    recipient_kind TEXT NOT NULL,
    recipient_pubkey TEXT,
    topic TEXT,
    reply_to_id TEXT,
    priority TEXT NOT NULL,
    subtype TEXT,
    event TEXT,
    event_data TEXT,
    trace_id TEXT,
    trace_hop INTEGER NOT NULL,
    -- NULL: the body cannot be opened with the keys of this member.
    body TEXT,
    created_at TEXT NOT NULL,
    received_at_ms BIGINT NOT NULL,
    seen_at_ms BIGINT,
    UNIQUE (sender_member, client_message_id)
);
CREATE INDEX messages_unseen ON messages (seq) WHERE seen_at_ms IS NULL;
CREATE INDEX messages_received ON messages (received_at_ms);
CREATE INDEX messages_sender ON messages (sender_pubkey, seq);

-- Which reader (session key, or `member`) received which message, and when and how it was shown there.
CREATE TABLE deliveries (
    reader TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES messages (seq) ON DELETE CASCADE,
    received_at_ms BIGINT NOT NULL,
    shown_at_ms BIGINT,
    route TEXT,
    stage TEXT NOT NULL,
    PRIMARY KEY (reader, seq)
);
CREATE INDEX deliveries_unshown ON deliveries (reader, seq) WHERE shown_at_ms IS NULL;
