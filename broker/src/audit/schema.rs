//! `audit_log` as diesel sees it.

diesel::table! {
    audit_log (mesh_id, seq) {
        mesh_id -> Text,
        seq -> BigInt,
        prev_hash -> Text,
        hash -> Text,
        event_type -> Text,
        actor_member_id -> Nullable<Text>,
        payload -> Text,
        created_at_ms -> BigInt,
    }
}
