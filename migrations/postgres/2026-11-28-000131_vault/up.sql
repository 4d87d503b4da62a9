-- Secrets of members, sealed by their clients: the broker has no key for any of them. `sealed_key` is the key of the value, sealed for
-- the member; `size_bytes` counts what is sealed and the description.
CREATE TABLE vault_entries (
    mesh_id TEXT NOT NULL,
    member_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    entry_type TEXT NOT NULL,
    mount_path TEXT,
    description TEXT,
    ciphertext TEXT NOT NULL,
    nonce TEXT NOT NULL,
    sealed_key TEXT NOT NULL,
    signature TEXT,
    signed_at_ms BIGINT,
    size_bytes BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, member_id, name)
);
