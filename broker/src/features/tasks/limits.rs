//! What a mesh and a member may keep and write.

use crate::quota::Quota;

/// Tasks stay until someone deletes them, done ones too.
pub const PER_MESH: Quota = Quota::new("tasks.per_mesh", 100_000, "Tasks of a mesh, done ones included.");
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota = Quota::new("tasks.per_member", 50_000, "Tasks of a mesh that one member has created.");
/// Titles, descriptions and results.
pub const BYTES_PER_MESH: Quota =
    Quota::new("tasks.bytes_per_mesh", 256 << 20, "Bytes of the texts of all tasks of a mesh.");
/// No one is to use up the mesh's.
pub const BYTES_PER_MEMBER: Quota =
    Quota::new("tasks.bytes_per_member", 128 << 20, "Bytes of the texts of the tasks that one member has created.");
/// A team of agents that share the work in small steps.
pub const WRITES_PER_MINUTE: Quota = Quota::new(
    "tasks.writes_per_minute",
    6_000,
    "Changes of tasks by one member in a minute, claims that fail included.",
);
/// All of them.
pub const ALL: &[&Quota] = &[&PER_MESH, &PER_MEMBER, &BYTES_PER_MESH, &BYTES_PER_MEMBER, &WRITES_PER_MINUTE];
