//! The table of the vault as diesel sees it.

diesel::table! {
    vault_entries (mesh_id, member_id, name) {
        mesh_id -> Text,
        member_id -> Text,
        name -> Text,
        entry_type -> Text,
        mount_path -> Nullable<Text>,
        description -> Nullable<Text>,
        ciphertext -> Text,
        nonce -> Text,
        sealed_key -> Text,
        signature -> Nullable<Text>,
        signed_at_ms -> Nullable<BigInt>,
        size_bytes -> BigInt,
        updated_at_ms -> BigInt,
    }
}
