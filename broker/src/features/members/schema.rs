//! `members` as diesel sees it.

diesel::table! {
    members (id) {
        id -> Text,
        mesh_id -> Text,
        pubkey -> Text,
        display_name -> Text,
        role -> Text,
        role_tag -> Nullable<Text>,
        default_groups -> Text,
        message_mode -> Text,
        grants -> Text,
        joined_at_ms -> BigInt,
        last_seen_at_ms -> Nullable<BigInt>,
        revoked_at_ms -> Nullable<BigInt>,
    }
}
