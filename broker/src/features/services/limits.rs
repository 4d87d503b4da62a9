//! What a mesh and a member may have hosted, and how much may be called.

use crate::quota::Quota;

/// Processes on the operator's machine.
pub const PER_MESH: Quota = Quota::new("services.per_mesh", 50, "Hosted MCP servers of a mesh.").at_most(128);
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota =
    Quota::new("services.per_member", 10, "Hosted MCP servers of a mesh that belong to one member.");
/// Memory of the operator's machine, by what services ask for.
pub const MEMORY_PER_SERVICE: Quota =
    Quota::new("services.memory_mb_per_service", 1_024, "MiB of memory that one hosted MCP server may ask for.");
/// As above.
pub const MEMORY_PER_MESH: Quota = Quota::new(
    "services.memory_mb_per_mesh",
    4_096,
    "MiB of memory that all hosted MCP servers of a mesh may ask for together.",
);
/// Each deploy installs packages.
pub const DEPLOYS_PER_MINUTE: Quota = Quota::new(
    "services.deploys_per_minute",
    20,
    "Hosted MCP servers that one member deploys, updates, removes or rescopes in a minute.",
);
/// All of them.
pub const ALL: &[&Quota] = &[&PER_MESH, &PER_MEMBER, &MEMORY_PER_SERVICE, &MEMORY_PER_MESH, &DEPLOYS_PER_MINUTE];

/// Deploys of one name that may wait for the one under way.
pub(super) const MAX_QUEUED: usize = 4;
