//! What a mesh and a member may register, and how much may be called.

use claudemesh_protocol::features::mcp_servers::limits::MAX_TOOLS_BYTES;

use crate::quota::Quota;

/// Models read the list of all servers.
pub const PER_MESH: Quota = Quota::new("mcp_servers.per_mesh", 500, "Registered MCP servers of a mesh.");
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota =
    Quota::new("mcp_servers.per_member", 100, "Registered MCP servers of a mesh that belong to one member.");
/// As the wire has it.
pub const BYTES_PER_SERVER: Quota = Quota::new(
    "mcp_servers.bytes_per_server",
    MAX_TOOLS_BYTES as u64,
    "Bytes of the tools and the description of one registered MCP server; at most 524288.",
)
.at_most(MAX_TOOLS_BYTES as u64);
/// Memory of the broker.
pub const BYTES_PER_MESH: Quota = Quota::new(
    "mcp_servers.bytes_per_mesh",
    32 << 20,
    "Bytes of the tools and descriptions of all registered MCP servers of a mesh.",
);
/// A server whose tools change tells it; each change is told to every session.
pub const REGISTRATIONS_PER_MINUTE: Quota = Quota::new(
    "mcp_servers.registrations_per_minute",
    120,
    "MCP servers that one member registers or removes in a minute.",
);
/// A program that calls every few milliseconds.
pub const CALLS_PER_MINUTE: Quota =
    Quota::new("mcp_servers.calls_per_minute", 60_000, "Calls of tools of MCP servers by one member in a minute.");
/// A host works on so many at once; each one holds memory here and there.
pub const CALLS_PER_HOST: Quota = Quota::new(
    "mcp_servers.calls_per_host",
    64,
    "Calls that one host of MCP servers works on at once; more are refused.",
);

/// What one service works on at once; each call holds memory.
pub const CALLS_PER_SERVICE: Quota = Quota::new(
    "mcp_servers.calls_per_service",
    64,
    "Calls that one hosted MCP server works on at once; more are refused.",
);
/// No one is to keep a service busy alone.
pub const CALLS_PER_CALLER: Quota = Quota::new(
    "mcp_servers.calls_per_caller",
    32,
    "Calls of one connection that one hosted MCP server works on at once; more are refused.",
);

/// All of them.
pub const ALL: &[&Quota] = &[
    &PER_MESH,
    &PER_MEMBER,
    &BYTES_PER_SERVER,
    &BYTES_PER_MESH,
    &REGISTRATIONS_PER_MINUTE,
    &CALLS_PER_MINUTE,
    &CALLS_PER_HOST,
    &CALLS_PER_SERVICE,
    &CALLS_PER_CALLER,
];
