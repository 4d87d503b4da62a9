//! Quotas: what a mesh and one member may keep and write.

use claudemesh_protocol::features::memory::limits::MAX_CONTENT_BYTES;

use crate::quota::Quota;

/// What a search over all of them is measured with.
pub const PER_MESH: Quota = Quota::new("memory.per_mesh", 100_000, "Memories of a mesh.");
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota = Quota::new("memory.per_member", 50_000, "Memories of a mesh that one member has stored.");
/// With their words in the index they take some four times that on disk.
pub const BYTES_PER_MESH: Quota =
    Quota::new("memory.bytes_per_mesh", 256 << 20, "Bytes of all memories of a mesh, tags included.");
/// As the number.
pub const BYTES_PER_MEMBER: Quota =
    Quota::new("memory.bytes_per_member", 128 << 20, "Bytes of the memories that one member has stored.");
/// As the wire has it.
pub const BYTES_PER_MEMORY: Quota =
    Quota::new("memory.bytes_per_memory", MAX_CONTENT_BYTES as u64, "Bytes of one memory; at most 32768.")
        .at_most(MAX_CONTENT_BYTES as u64);
/// A script that stores in a loop does it by mistake.
pub const WRITES_PER_MINUTE: Quota =
    Quota::new("memory.writes_per_minute", 600, "Memories that one member stores or forgets in a minute.");

/// All of them.
pub const ALL: &[&Quota] =
    &[&PER_MESH, &PER_MEMBER, &BYTES_PER_MESH, &BYTES_PER_MEMBER, &BYTES_PER_MEMORY, &WRITES_PER_MINUTE];
