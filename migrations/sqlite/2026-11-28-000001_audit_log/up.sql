-- A hash chain per mesh; the journal is the only writer and appends in the transaction of the change.
CREATE TABLE audit_log (
    mesh_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    event_type TEXT NOT NULL,
    actor_member_id TEXT,
    payload TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, seq)
) WITHOUT ROWID;
CREATE INDEX audit_log_by_event ON audit_log (mesh_id, event_type, seq);
CREATE INDEX audit_log_by_actor ON audit_log (mesh_id, actor_member_id, seq) WHERE actor_member_id IS NOT NULL;
