//! The tables of schedules as diesel sees them.

use crate::db::schema::meshes;

diesel::table! {
    schedules (mesh_id, id) {
        mesh_id -> Text,
        id -> Text,
        member_id -> Text,
        targets -> Text,
        nonce -> Text,
        body -> Text,
        sealed -> Bool,
        subtype -> Nullable<Text>,
        cron -> Nullable<Text>,
        zone -> Text,
        clock -> Text,
        misfire -> Text,
        state -> Text,
        at_ms -> BigInt,
        due_ms -> Nullable<BigInt>,
        created_at_ms -> BigInt,
        changed_at_ms -> BigInt,
        fired_count -> BigInt,
        missed_count -> BigInt,
        last_fired_ms -> Nullable<BigInt>,
        last_error -> Nullable<Text>,
        version -> BigInt,
        size_bytes -> BigInt,
    }
}

diesel::table! {
    schedule_totals (mesh_id, member_id) {
        mesh_id -> Text,
        member_id -> Text,
        entries -> BigInt,
        recurring -> BigInt,
        bytes -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(schedules, meshes);
