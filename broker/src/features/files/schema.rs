//! The tables of files as diesel sees them.

diesel::table! {
    files (mesh_id, id) {
        mesh_id -> Text,
        id -> Text,
        owner_id -> Text,
        owner_name -> Text,
        client_upload_id -> Text,
        name -> Text,
        name_folded -> Text,
        tags -> Text,
        targets -> Text,
        content_type -> Nullable<Text>,
        encryption -> Nullable<Text>,
        sealed_meta -> Nullable<Text>,
        regrant -> Bool,
        persistent -> Bool,
        ttl_ms -> BigInt,
        at_most -> Bool,
        size_bytes -> BigInt,
        received_bytes -> BigInt,
        sha256 -> Nullable<Text>,
        lost -> Bool,
        created_at_ms -> BigInt,
        ready_at_ms -> Nullable<BigInt>,
        expires_at_ms -> Nullable<BigInt>,
    }
}

diesel::table! {
    file_parts (mesh_id, file_id, start_at) {
        mesh_id -> Text,
        file_id -> Text,
        start_at -> BigInt,
        size_bytes -> BigInt,
        object -> Text,
    }
}

diesel::table! {
    file_readers (mesh_id, file_id, reader) {
        mesh_id -> Text,
        file_id -> Text,
        reader -> Text,
    }
}

diesel::table! {
    file_keys (mesh_id, file_id, pubkey) {
        mesh_id -> Text,
        file_id -> Text,
        pubkey -> Text,
        member_id -> Text,
        sealed_key -> Text,
    }
}

diesel::table! {
    file_accesses (mesh_id, file_id, number) {
        mesh_id -> Text,
        file_id -> Text,
        number -> BigInt,
        member_id -> Text,
        peer_name -> Text,
        accessed_at_ms -> BigInt,
    }
}

diesel::table! {
    file_totals (mesh_id, member_id) {
        mesh_id -> Text,
        member_id -> Text,
        files -> BigInt,
        uploads -> BigInt,
        bytes -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(files, file_readers);
