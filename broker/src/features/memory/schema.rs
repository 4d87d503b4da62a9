//! The tables of memory as diesel sees them. The index is no table of diesel's, see [`crate::search::index`].

diesel::table! {
    memories (mesh_id, id) {
        mesh_id -> Text,
        id -> Text,
        row_no -> BigInt,
        content -> Text,
        tags -> Text,
        size_bytes -> BigInt,
        digest -> Text,
        member_id -> Text,
        author_name -> Text,
        created_at_ms -> BigInt,
    }
}

diesel::table! {
    memory_totals (mesh_id, member_id) {
        mesh_id -> Text,
        member_id -> Text,
        memories -> BigInt,
        bytes -> BigInt,
        last_at_ms -> BigInt,
    }
}
