//! What a mesh and a member may keep and write, as an operator sets it: `[limit.state]`.

use claudemesh_protocol::features::state::limits as wire;
use serde::{Deserialize, Serialize};

/// Bounds of shared state. What is kept is bounded also with `limits = "off"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateLimits {
    /// Keys of one mesh.
    pub keys_per_mesh: u64,
    /// Of them last written by one member: nobody is to use up the mesh's.
    pub keys_per_member: u64,
    /// Bytes of all values of one mesh as compact JSON, keys included.
    pub bytes_per_mesh: u64,
    /// Of them last written by one member.
    pub bytes_per_member: u64,
    /// Bytes of one value; the wire carries at most 262,144.
    pub bytes_per_value: u64,
    /// Writes a minute from one member; 0 switches it off.
    pub writes_per_minute: u32,
}

impl Default for StateLimits {
    fn default() -> Self {
        Self {
            keys_per_mesh: 100_000,
            keys_per_member: 50_000,
            bytes_per_mesh: 256 << 20,
            bytes_per_member: 128 << 20,
            bytes_per_value: wire::MAX_VALUE_BYTES as u64,
            writes_per_minute: 6_000,
        }
    }
}

impl StateLimits {
    /// No rate. What fills storage stays bounded.
    pub fn off() -> Self {
        Self { writes_per_minute: 0, ..Self::default() }
    }
}
