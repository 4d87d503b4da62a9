//! The table of contexts as diesel sees it. The index is no table of diesel's, see [`crate::search::index`].

diesel::table! {
    contexts (mesh_id, session) {
        mesh_id -> Text,
        session -> Text,
        id -> Text,
        row_no -> BigInt,
        member_id -> Text,
        peer_name -> Text,
        session_name -> Text,
        summary -> Text,
        files -> Text,
        findings -> Text,
        tags -> Text,
        size_bytes -> BigInt,
        updated_at_ms -> BigInt,
    }
}
