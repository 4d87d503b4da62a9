//! `topics` and `topic_members` as diesel sees them.

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

diesel::allow_tables_to_appear_in_same_query!(topic_members, topics);
