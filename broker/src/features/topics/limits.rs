//! Bounds of topics that an operator can change.

use crate::quota::Quota;

/// The whole list is one answer.
pub(super) const PER_MESH: Quota = Quota::new("topics.per_mesh", 1_000, "Topics of a mesh.");
/// No one can take topics away again, so no one is to use up the mesh's.
pub(super) const PER_MEMBER: Quota = Quota::new("topics.per_member", 500, "Topics of a mesh that one member has made.");
/// A person makes one now and then; a script that makes them in a loop does it by mistake.
pub(super) const MADE_PER_MINUTE: Quota =
    Quota::new("topics.made_per_minute", 60, "Topics that one member makes in a minute.");
/// Edits, deletions, reactions, pins and changes of members are read by every subscriber.
pub(super) const CHANGES_PER_MINUTE: Quota = Quota::new(
    "topics.changes_per_minute",
    120,
    "Edits, deletions, reactions, pins and changes of members of topics by one member in a minute.",
);
/// A search reads up to 2,000 messages.
pub(super) const SEARCHES_PER_MINUTE: Quota =
    Quota::new("topics.searches_per_minute", 60, "Searches in topics by one member in a minute.");
/// One row each.
pub(super) const REACTIONS_PER_MESSAGE: Quota =
    Quota::new("topics.reactions_per_message", 1_000, "Reactions to one message of a topic.");
/// Each message is handed to each of them.
pub(super) const FOLLOWERS_PER_MESH: Quota =
    Quota::new("topics.followers_per_mesh", 5_000, "Connections and HTTP streams that follow topics of a mesh.");
/// So that one member does not take the places of all.
pub(super) const FOLLOWERS_PER_MEMBER: Quota = Quota::new(
    "topics.followers_per_member",
    1_000,
    "Connections and HTTP streams with which one member follows topics of a mesh.",
);
