//! What a mesh and a member may keep and write. What is kept is bounded also with `limits = "off"`.

use claudemesh_protocol::features::state::limits as wire;

use crate::quota::Quota;

/// Tombstones, names and audit entries cost as much again.
pub const KEYS_PER_MESH: Quota = Quota::new("state.keys_per_mesh", 100_000, "Shared keys of a mesh.");
/// No one is to use up the mesh's.
pub const KEYS_PER_MEMBER: Quota =
    Quota::new("state.keys_per_member", 50_000, "Shared keys that one member wrote last.");
/// Bytes as compact JSON.
pub const BYTES_PER_MESH: Quota =
    Quota::new("state.bytes_per_mesh", 256 << 20, "Bytes of all shared values of a mesh, keys included.");
/// As [`BYTES_PER_MESH`].
pub const BYTES_PER_MEMBER: Quota =
    Quota::new("state.bytes_per_member", 128 << 20, "Bytes of the shared values that one member wrote last.");
/// The wire carries no more.
pub const BYTES_PER_VALUE: Quota =
    Quota::new("state.bytes_per_value", wire::MAX_VALUE_BYTES as u64, "Bytes of one shared value; at most 262144.")
        .at_most(wire::MAX_VALUE_BYTES as u64);
/// A hundred a second: a flood of one member costs the others nothing.
pub const WRITES_PER_MINUTE: Quota =
    Quota::new("state.writes_per_minute", 6_000, "Writes of shared keys by one member in a minute.");
/// All of them.
pub const ALL: &[&Quota] =
    &[&KEYS_PER_MESH, &KEYS_PER_MEMBER, &BYTES_PER_MESH, &BYTES_PER_MEMBER, &BYTES_PER_VALUE, &WRITES_PER_MINUTE];
