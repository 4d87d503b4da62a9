//! The table of services as diesel sees it.

diesel::table! {
    services (mesh_id, name) {
        mesh_id -> Text,
        name -> Text,
        member_id -> Text,
        deployed_by -> Text,
        description -> Text,
        source -> Text,
        config -> Text,
        sealed -> Text,
        scope -> Text,
        audience -> Text,
        status -> Text,
        error -> Nullable<Text>,
        runtime -> Nullable<Text>,
        tools -> Text,
        revision -> BigInt,
        pending -> Nullable<BigInt>,
        size_bytes -> BigInt,
        created_at_ms -> BigInt,
        updated_at_ms -> BigInt,
    }
}
