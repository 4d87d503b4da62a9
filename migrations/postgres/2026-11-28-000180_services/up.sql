-- MCP servers that the mesh hosts: one row each, with what was deployed last and worked (or is the first to be tried). `source`, `config`,
-- `sealed`, `scope`, `audience` and `tools` are JSON; what is in `sealed` only the runner can open. `pending` is there while a newer
-- version is being tried.
CREATE TABLE services (
    mesh_id TEXT NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    member_id TEXT NOT NULL,
    deployed_by TEXT NOT NULL,
    description TEXT NOT NULL,
    source TEXT NOT NULL,
    config TEXT NOT NULL,
    sealed TEXT NOT NULL,
    scope TEXT NOT NULL,
    audience TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    runtime TEXT,
    tools TEXT NOT NULL,
    revision BIGINT NOT NULL,
    pending BIGINT,
    size_bytes BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (mesh_id, name)
);
