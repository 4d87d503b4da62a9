//! `api_keys` as diesel sees it.

diesel::table! {
    api_keys (mesh_id, id) {
        mesh_id -> Text,
        id -> Text,
        member_id -> Text,
        label -> Text,
        prefix -> Text,
        secret_hash -> Text,
        capabilities -> Text,
        topic_scopes -> Nullable<Text>,
        created_at_ms -> BigInt,
        expires_at_ms -> Nullable<BigInt>,
        last_used_at_ms -> Nullable<BigInt>,
        revoked_at_ms -> Nullable<BigInt>,
    }
}
