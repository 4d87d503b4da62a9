//! `sessions` and `member_stats` as diesel sees them.

diesel::table! {
    sessions (mesh_id, session_key) {
        mesh_id -> Text,
        session_key -> Text,
        member_id -> Text,
        session_id -> Text,
        display_name -> Text,
        cwd -> Text,
        hostname -> Nullable<Text>,
        groups -> Text,
        profile -> Text,
        visible -> Bool,
        summary -> Nullable<Text>,
        status -> Text,
        stats -> Text,
        first_seen_at_ms -> BigInt,
        last_seen_at_ms -> BigInt,
        proven -> Bool,
    }
}

diesel::table! {
    member_stats (member_id) {
        mesh_id -> Text,
        member_id -> Text,
        messages_in -> BigInt,
        messages_out -> BigInt,
        tool_calls -> BigInt,
        errors -> BigInt,
    }
}
