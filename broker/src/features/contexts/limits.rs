//! Quotas: what a mesh and one member may keep and write.

use claudemesh_protocol::features::contexts::limits::MAX_CONTEXT_BYTES;

use crate::quota::Quota;

/// A month of the sessions of a large team.
pub const PER_MESH: Quota =
    Quota::new("contexts.per_mesh", 10_000, "Contexts of a mesh, those of sessions that are gone included.");
/// Thirty sessions a day.
pub const PER_MEMBER: Quota =
    Quota::new("contexts.per_member", 1_000, "Contexts of the sessions of one member, those that are gone included.");
/// As the wire has it.
pub const BYTES_PER_CONTEXT: Quota =
    Quota::new("contexts.bytes_per_context", MAX_CONTEXT_BYTES as u64, "Bytes of one context; at most 32768.")
        .at_most(MAX_CONTEXT_BYTES as u64);
/// A session that shares more often says the same again and again; each time the others are told.
pub const WRITES_PER_MINUTE: Quota =
    Quota::new("contexts.writes_per_minute", 60, "Contexts that one member shares in a minute.");

/// All of them.
pub const ALL: &[&Quota] = &[&PER_MESH, &PER_MEMBER, &BYTES_PER_CONTEXT, &WRITES_PER_MINUTE];
