-- Messages that are sent later. `due_ms` is the next time, of the wall clock or of the mesh's (`clock`); an entry that is paused or
-- over has none. `at_ms` is the time that one without `cron` was made for.
CREATE TABLE schedules (
    mesh_id TEXT NOT NULL,
    id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    targets TEXT NOT NULL,
    nonce TEXT NOT NULL,
    body TEXT NOT NULL,
    sealed BOOLEAN NOT NULL,
    subtype TEXT,
    cron TEXT,
    zone TEXT NOT NULL,
    clock TEXT NOT NULL,
    misfire TEXT NOT NULL,
    state TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    due_ms BIGINT,
    created_at_ms BIGINT NOT NULL,
    changed_at_ms BIGINT NOT NULL,
    fired_count BIGINT NOT NULL,
    missed_count BIGINT NOT NULL,
    last_fired_ms BIGINT,
    last_error TEXT,
    version BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, id)
);
-- What a mesh sends next, and which meshes have something to send.
CREATE INDEX schedules_due ON schedules (mesh_id, clock, due_ms, id);
CREATE INDEX schedules_due_anywhere ON schedules (clock, due_ms);
CREATE INDEX schedules_of_member ON schedules (mesh_id, member_id, at_ms, id);
CREATE INDEX schedules_over ON schedules (state, changed_at_ms);

-- What each member has that is not over, and the mesh (`member_id` is empty): counted here, because counting takes too long.
CREATE TABLE schedule_totals (
    mesh_id TEXT NOT NULL,
    member_id TEXT NOT NULL,
    entries BIGINT NOT NULL,
    recurring BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, member_id)
) WITHOUT ROWID;
