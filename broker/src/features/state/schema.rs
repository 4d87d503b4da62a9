//! The tables of state as diesel sees them.

diesel::table! {
    state_entries (mesh_id, name) {
        mesh_id -> Text,
        name -> Text,
        value -> Text,
        size_bytes -> BigInt,
        version -> BigInt,
        revision -> BigInt,
        updated_by -> Text,
        updated_by_name -> Text,
        updated_at_ms -> BigInt,
        expires_at_ms -> Nullable<BigInt>,
        deleted -> Bool,
    }
}

diesel::table! {
    state_heads (mesh_id) {
        mesh_id -> Text,
        revision -> BigInt,
        forgotten_revision -> BigInt,
        entries -> BigInt,
        bytes -> BigInt,
        tombstones -> BigInt,
    }
}

diesel::table! {
    state_members (mesh_id, member_id) {
        mesh_id -> Text,
        member_id -> Text,
        entries -> BigInt,
        bytes -> BigInt,
    }
}
