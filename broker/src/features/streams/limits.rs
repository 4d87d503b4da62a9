//! What a mesh and a member may keep and write.

use crate::quota::Quota;

/// The whole list is one answer.
pub const PER_MESH: Quota = Quota::new("streams.per_mesh", 1_000, "Streams of a mesh.");
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota = Quota::new("streams.per_member", 500, "Streams of a mesh that one member has made.");
/// The data of all streams.
pub const BYTES_PER_MESH: Quota =
    Quota::new("streams.bytes_per_mesh", 1 << 30, "Bytes of the data of all streams of a mesh.");
/// Also what a stream keeps when it says nothing.
pub const KEEP_ENTRIES: Quota =
    Quota::new("streams.entries_per_stream", 100_000, "Entries that one stream keeps; older ones go.");
/// Also what a stream keeps when it says nothing.
pub const KEEP_BYTES: Quota =
    Quota::new("streams.bytes_per_stream", 64 << 20, "Bytes that one stream keeps; older entries go.");
/// A program that publishes every few milliseconds.
pub const PUBLISHED_PER_MINUTE: Quota =
    Quota::new("streams.published_per_minute", 12_000, "Entries that one member publishes in a minute.");
/// Memory and wakes of the broker.
pub const SUBSCRIPTIONS: Quota =
    Quota::new("streams.subscriptions_per_peer", 100, "Streams that one connection subscribes to.");
/// Positions that a member leaves behind.
pub const CONSUMERS: Quota = Quota::new("streams.consumers_per_member", 100, "Consumers of one member in one stream.");

/// How long entries are kept when a stream says nothing, in milliseconds: 7 days, as messages are.
pub const KEEP_MS: i64 = 7 * 86_400_000;

/// All of them.
pub const ALL: &[&Quota] = &[
    &PER_MESH,
    &PER_MEMBER,
    &BYTES_PER_MESH,
    &KEEP_ENTRIES,
    &KEEP_BYTES,
    &PUBLISHED_PER_MINUTE,
    &SUBSCRIPTIONS,
    &CONSUMERS,
];
