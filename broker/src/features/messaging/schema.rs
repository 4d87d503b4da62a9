//! `messages` and `deliveries` as diesel sees them.

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

diesel::allow_tables_to_appear_in_same_query!(deliveries, messages);
