//! The tables of skills as diesel sees them. The index is no table of diesel's, see [`crate::search::index`].

diesel::table! {
    skills (mesh_id, name) {
        mesh_id -> Text,
        name -> Text,
        id -> Text,
        row_no -> BigInt,
        owner_id -> Text,
        version -> BigInt,
        description -> Text,
        tags -> Text,
        author_id -> Text,
        author_name -> Text,
        size_bytes -> BigInt,
        created_at_ms -> BigInt,
        updated_at_ms -> BigInt,
    }
}

diesel::table! {
    skill_versions (mesh_id, skill_id, version) {
        mesh_id -> Text,
        skill_id -> Text,
        version -> BigInt,
        description -> Text,
        instructions -> Text,
        tags -> Text,
        manifest -> Nullable<Text>,
        digest -> Text,
        author_id -> Text,
        author_name -> Text,
        author_pubkey -> Text,
        signature -> Nullable<Text>,
        signed_at_ms -> Nullable<BigInt>,
        size_bytes -> BigInt,
        created_at_ms -> BigInt,
    }
}
