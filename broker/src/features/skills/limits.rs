//! Quotas: what a mesh and one member may keep and write.

use claudemesh_protocol::features::skills::limits::MAX_SKILL_BYTES;

use crate::quota::Quota;

/// Models read the description of every skill. A write reads the sizes of all of them, hence the largest value.
pub const PER_MESH: Quota = Quota::new("skills.per_mesh", 500, "Skills of a mesh; at most 5000.").at_most(5_000);
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota = Quota::new("skills.per_member", 200, "Skills of a mesh that one member has shared.");
/// All skills with some versions of each.
pub const BYTES_PER_MESH: Quota =
    Quota::new("skills.bytes_per_mesh", 64 << 20, "Bytes of all skills of a mesh, former versions included.");
/// As the number.
pub const BYTES_PER_MEMBER: Quota = Quota::new(
    "skills.bytes_per_member",
    32 << 20,
    "Bytes of the skills that one member has shared, former versions included.",
);
/// As the wire has it.
pub const BYTES_PER_SKILL: Quota =
    Quota::new("skills.bytes_per_skill", MAX_SKILL_BYTES as u64, "Bytes of one version of a skill; at most 65536.")
        .at_most(MAX_SKILL_BYTES as u64);
/// Enough to see what was changed lately. An answer lists them, hence the largest value.
pub const VERSIONS_PER_SKILL: Quota =
    Quota::new("skills.versions_per_skill", 20, "Versions of a skill that are kept, at most 200; older ones go.")
        .at_most(200);
/// Each change is told to every session, which reads the list again.
pub const WRITES_PER_MINUTE: Quota =
    Quota::new("skills.writes_per_minute", 60, "Skills that one member shares or removes in a minute.");

/// All of them.
pub const ALL: &[&Quota] = &[
    &PER_MESH,
    &PER_MEMBER,
    &BYTES_PER_MESH,
    &BYTES_PER_MEMBER,
    &BYTES_PER_SKILL,
    &VERSIONS_PER_SKILL,
    &WRITES_PER_MINUTE,
];
