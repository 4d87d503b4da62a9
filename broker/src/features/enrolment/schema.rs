//! `invites` as diesel sees it.

diesel::table! {
    invites (id) {
        id -> Text,
        mesh_id -> Text,
        version -> Integer,
        code -> Nullable<Text>,
        token_hash -> Nullable<Text>,
        role -> Text,
        max_uses -> Integer,
        used_count -> Integer,
        expires_at_ms -> BigInt,
        created_at_ms -> BigInt,
        created_by_key -> Text,
        revoked_at_ms -> Nullable<BigInt>,
        canonical -> Text,
        signature -> Text,
        preset -> Nullable<Text>,
    }
}
