//! `broker_meta` as diesel sees it. A feature's tables are in its own `schema.rs`, in the same portable types: ids and JSON are
//! `Text`, times `BigInt` milliseconds. A test reads them all and compares them with what the migrations make.

diesel::table! {
    broker_meta (key) {
        key -> Text,
        value -> Text,
    }
}
