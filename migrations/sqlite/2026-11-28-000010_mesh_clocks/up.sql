-- The simulated clock of a mesh as it was at `saved_at_ms`; how it goes on follows from that.
CREATE TABLE mesh_clocks (
    mesh_id TEXT PRIMARY KEY NOT NULL,
    speed_thousandths BIGINT NOT NULL,
    paused BOOLEAN NOT NULL,
    auto_paused BOOLEAN NOT NULL,
    tick BIGINT NOT NULL,
    sim_ms BIGINT NOT NULL,
    phase_us BIGINT NOT NULL,
    started_at_ms BIGINT NOT NULL,
    saved_at_ms BIGINT NOT NULL
) WITHOUT ROWID;
