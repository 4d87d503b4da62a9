-- What this member sent from this machine, by any of its sessions and shells.
CREATE TABLE sent (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    target TEXT NOT NULL,
    to_name TEXT,
    to_pubkey TEXT,
    to_member TEXT,
    from_pubkey TEXT NOT NULL,
    priority TEXT NOT NULL,
    subtype TEXT,
    reply_to_id TEXT,
    body TEXT NOT NULL,
    sent_at_ms BIGINT NOT NULL
);
CREATE INDEX sent_at ON sent (sent_at_ms);

-- Keys of the doctor's own sessions while it runs: no list shows their messages.
CREATE TABLE hidden_keys (
    pubkey TEXT NOT NULL PRIMARY KEY,
    since_ms BIGINT NOT NULL
);
