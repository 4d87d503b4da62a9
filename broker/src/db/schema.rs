//! Tables as diesel sees them, in portable types: ids and JSON are `Text`, times `BigInt` milliseconds.
//!
//! Written by hand for both backends; a test compares it with what the migrations make.

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
    }
}

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

diesel::table! {
    messages (mesh_id, seq) {
        mesh_id -> Text,
        seq -> BigInt,
        id -> Text,
        sender_member_id -> Text,
        sender_key -> Text,
        sender_member_key -> Text,
        sender_name -> Text,
        target_spec -> Text,
        priority -> Integer,
        nonce -> Text,
        ciphertext -> Text,
        created_at_ms -> BigInt,
        expires_at_ms -> BigInt,
        client_message_id -> Nullable<Text>,
        request_fingerprint -> Nullable<Text>,
        reply_to_id -> Nullable<Text>,
        subtype -> Nullable<Text>,
        topic_id -> Nullable<Text>,
        topic_name -> Nullable<Text>,
        body_version -> Integer,
        trace_id -> Nullable<Text>,
        trace_hop -> Integer,
    }
}

diesel::table! {
    deliveries (mesh_id, seq, recipient_key) {
        mesh_id -> Text,
        seq -> BigInt,
        recipient_key -> Text,
        recipient_kind -> Integer,
        member_id -> Text,
        priority -> Integer,
        size_bytes -> Integer,
        stage -> Integer,
        stage_at_ms -> Nullable<BigInt>,
        route -> Nullable<Text>,
    }
}

diesel::table! {
    topics (id) {
        id -> Text,
        mesh_id -> Text,
        name -> Text,
        description -> Nullable<Text>,
        visibility -> Text,
        created_by -> Text,
        created_at_ms -> BigInt,
    }
}

diesel::table! {
    topic_members (topic_id, member_id) {
        topic_id -> Text,
        member_id -> Text,
        role -> Text,
        joined_at_ms -> BigInt,
        last_read_seq -> BigInt,
        last_read_at_ms -> Nullable<BigInt>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    broker_meta,
    deliveries,
    invites,
    member_stats,
    members,
    meshes,
    messages,
    sessions,
    topic_members,
    topics
);
