-- MCP servers that sessions run and that are kept while no session does: one row each, with the host that ran it last. `tools` is JSON.
CREATE TABLE mcp_servers (
    mesh_id TEXT NOT NULL,
    name TEXT NOT NULL,
    member_id TEXT NOT NULL,
    hosted_by TEXT NOT NULL,
    session_ref TEXT NOT NULL,
    description TEXT NOT NULL,
    tools TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    offline_since_ms BIGINT,
    PRIMARY KEY (mesh_id, name)
);
