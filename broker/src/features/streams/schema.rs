//! The tables of streams as diesel sees them.

diesel::table! {
    streams (mesh_id, name) {
        mesh_id -> Text,
        name -> Text,
        id -> Text,
        created_by -> Text,
        created_by_name -> Text,
        created_at_ms -> BigInt,
        first_offset -> BigInt,
        next_offset -> BigInt,
        published_at_ms -> BigInt,
        bytes -> BigInt,
        keep_entries -> BigInt,
        keep_bytes -> BigInt,
        keep_ms -> BigInt,
    }
}

diesel::table! {
    stream_entries (mesh_id, stream_id, place) {
        mesh_id -> Text,
        stream_id -> Text,
        place -> BigInt,
        data -> Text,
        size_bytes -> BigInt,
        published_by -> Text,
        published_by_name -> Text,
        session_id -> Text,
        published_at_ms -> BigInt,
    }
}

diesel::table! {
    stream_consumers (mesh_id, stream_id, member_id, name) {
        mesh_id -> Text,
        stream_id -> Text,
        member_id -> Text,
        name -> Text,
        next_offset -> BigInt,
        updated_at_ms -> BigInt,
    }
}

diesel::table! {
    stream_heads (mesh_id) {
        mesh_id -> Text,
        streams -> BigInt,
        bytes -> BigInt,
    }
}
