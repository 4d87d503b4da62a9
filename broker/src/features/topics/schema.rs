//! `topics`, their members, what happened to their messages, and mentions, as diesel sees them.

use crate::features::messaging::schema::messages;

diesel::table! {
    topics (id) {
        id -> Text,
        mesh_id -> Text,
        name -> Text,
        description -> Nullable<Text>,
        visibility -> Text,
        created_by -> Text,
        created_at_ms -> BigInt,
        retention_ms -> Nullable<BigInt>,
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

diesel::table! {
    topic_marks (mesh_id, message_id) {
        mesh_id -> Text,
        message_id -> Text,
        topic_id -> Text,
        seq -> BigInt,
        edited_at_ms -> Nullable<BigInt>,
        deleted_at_ms -> Nullable<BigInt>,
        pinned_at_ms -> Nullable<BigInt>,
    }
}

diesel::table! {
    topic_reactions (mesh_id, message_id, emoji, member_id) {
        mesh_id -> Text,
        message_id -> Text,
        emoji -> Text,
        member_id -> Text,
        seq -> BigInt,
        reacted_at_ms -> BigInt,
    }
}

diesel::table! {
    notifications (mesh_id, member_id, seq) {
        mesh_id -> Text,
        member_id -> Text,
        seq -> BigInt,
        message_id -> Text,
        topic_id -> Text,
        kind -> Text,
        created_at_ms -> BigInt,
        read_at_ms -> Nullable<BigInt>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(topic_members, topics, messages);
diesel::allow_tables_to_appear_in_same_query!(notifications, messages);
diesel::allow_tables_to_appear_in_same_query!(topic_marks, messages);
diesel::allow_tables_to_appear_in_same_query!(topic_reactions, messages);
