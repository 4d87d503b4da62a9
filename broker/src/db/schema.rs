//! `broker_meta` as diesel sees it. A feature's tables are in its own `schema.rs`, in the same portable types: ids and JSON are
//! `Text`, times `BigInt` milliseconds. A test reads them all and compares them with what the migrations make.

diesel::table! {
    broker_meta (key) {
        key -> Text,
        value -> Text,
    }
}

diesel::table! {
    meshes (id) {
        id -> Text,
        slug -> Text,
        name -> Text,
        owner_pubkey -> Text,
        self_editable -> Text,
        created_at_ms -> BigInt,
        archived_at_ms -> Nullable<BigInt>,
        deleted_at_ms -> Nullable<BigInt>,
        limits -> Text,
    }
}

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
        removed_at_ms -> Nullable<BigInt>,
    }
}

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
        renamed_from -> Nullable<Text>,
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

diesel::table! {
    capabilities (mesh_id, member_id, capability) {
        mesh_id -> Text,
        member_id -> Text,
        capability -> Text,
        allowed -> Bool,
    }
}

diesel::table! {
    member_groups (mesh_id, member_id, name) {
        mesh_id -> Text,
        member_id -> Text,
        name -> Text,
        role -> Nullable<Text>,
        joined_at_ms -> BigInt,
    }
}

diesel::table! {
    former_names (mesh_id, kind, subject, name) {
        mesh_id -> Text,
        kind -> Text,
        subject -> Text,
        name -> Text,
        until_ms -> BigInt,
    }
}
