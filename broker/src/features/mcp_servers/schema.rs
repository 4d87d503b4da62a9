//! The table of MCP servers as diesel sees it.

diesel::table! {
    mcp_servers (mesh_id, name) {
        mesh_id -> Text,
        name -> Text,
        member_id -> Text,
        hosted_by -> Text,
        session_ref -> Text,
        description -> Text,
        tools -> Text,
        size_bytes -> BigInt,
        created_at_ms -> BigInt,
        updated_at_ms -> BigInt,
        offline_since_ms -> Nullable<BigInt>,
    }
}
