//! The tables of tasks as diesel sees them.

diesel::table! {
    tasks (mesh_id, seq) {
        mesh_id -> Text,
        seq -> BigInt,
        id -> Text,
        title -> Text,
        description -> Nullable<Text>,
        assignee -> Nullable<Text>,
        assignee_folded -> Nullable<Text>,
        priority -> Integer,
        status -> Integer,
        tags -> Text,
        depends_on -> Text,
        blockers -> BigInt,
        creator_member -> Text,
        creator_session -> Text,
        creator_name -> Text,
        created_at_ms -> BigInt,
        holder_member -> Nullable<Text>,
        holder_session -> Nullable<Text>,
        holder_name -> Nullable<Text>,
        claimed_at_ms -> Nullable<BigInt>,
        result -> Nullable<Text>,
        done_at_ms -> Nullable<BigInt>,
        due_at_ms -> Nullable<BigInt>,
        version -> BigInt,
        size_bytes -> BigInt,
    }
}

diesel::table! {
    task_tags (mesh_id, tag, task_seq) {
        mesh_id -> Text,
        tag -> Text,
        task_seq -> BigInt,
    }
}

diesel::table! {
    task_dependencies (mesh_id, task_seq, needs_seq) {
        mesh_id -> Text,
        task_seq -> BigInt,
        needs_seq -> BigInt,
    }
}

diesel::table! {
    task_steps (mesh_id, task_seq, version) {
        mesh_id -> Text,
        task_seq -> BigInt,
        version -> BigInt,
        at_ms -> BigInt,
        member_id -> Text,
        name -> Text,
        what -> Text,
        detail -> Nullable<Text>,
    }
}

diesel::table! {
    task_heads (mesh_id) {
        mesh_id -> Text,
        revision -> BigInt,
        last_seq -> BigInt,
        open -> BigInt,
        claimed -> BigInt,
        done -> BigInt,
        bytes -> BigInt,
    }
}

diesel::table! {
    task_members (mesh_id, member_id) {
        mesh_id -> Text,
        member_id -> Text,
        tasks -> BigInt,
        bytes -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(tasks, task_tags, task_steps);
