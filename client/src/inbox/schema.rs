//! Tables of `inbox/<mesh id>.db`, as `client/migrations` makes them.

diesel::table! {
    messages (seq) {
        seq -> BigInt,
        message_id -> Text,
        client_message_id -> Nullable<Text>,
        sender_pubkey -> Text,
        sender_member -> Text,
        sender_name -> Nullable<Text>,
        target_spec -> Nullable<Text>,
        kind -> Text,
        recipient_kind -> Text,
        recipient_pubkey -> Nullable<Text>,
        topic -> Nullable<Text>,
        reply_to_id -> Nullable<Text>,
        priority -> Text,
        subtype -> Nullable<Text>,
        event -> Nullable<Text>,
        event_data -> Nullable<Text>,
        trace_id -> Nullable<Text>,
        trace_hop -> Integer,
        body -> Nullable<Text>,
        created_at -> Text,
        received_at_ms -> BigInt,
        seen_at_ms -> Nullable<BigInt>,
        sender_member_name -> Nullable<Text>,
        sender_hostname -> Nullable<Text>,
        sender_cwd -> Nullable<Text>,
    }
}

diesel::table! {
    sent (seq) {
        seq -> BigInt,
        message_id -> Text,
        target -> Text,
        to_name -> Nullable<Text>,
        to_pubkey -> Nullable<Text>,
        to_member -> Nullable<Text>,
        from_pubkey -> Text,
        priority -> Text,
        subtype -> Nullable<Text>,
        reply_to_id -> Nullable<Text>,
        body -> Text,
        sent_at_ms -> BigInt,
    }
}

diesel::table! {
    hidden_keys (pubkey) {
        pubkey -> Text,
        since_ms -> BigInt,
    }
}

diesel::table! {
    deliveries (reader, seq) {
        reader -> Text,
        seq -> BigInt,
        received_at_ms -> BigInt,
        shown_at_ms -> Nullable<BigInt>,
        route -> Nullable<Text>,
        stage -> Text,
        inbound -> Nullable<Text>,
    }
}

diesel::table! {
    answers (seq) {
        seq -> BigInt,
        client_message_id -> Text,
        begun_at_ms -> BigInt,
        answered_at_ms -> Nullable<BigInt>,
        declined -> Bool,
    }
}

diesel::table! {
    question_readers (reader, seq) {
        reader -> Text,
        seq -> BigInt,
        polled_at_ms -> Nullable<BigInt>,
        stop_blocks -> Integer,
        declined_at_ms -> Nullable<BigInt>,
    }
}

diesel::joinable!(deliveries -> messages (seq));
diesel::allow_tables_to_appear_in_same_query!(messages, deliveries, answers, question_readers);
