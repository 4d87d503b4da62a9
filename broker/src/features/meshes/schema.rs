//! `meshes` as diesel sees it.

diesel::table! {
    meshes (id) {
        id -> Text,
        slug -> Text,
        name -> Text,
        owner_pubkey -> Text,
        self_editable -> Text,
        created_at_ms -> BigInt,
        archived_at_ms -> Nullable<BigInt>,
    }
}
