//! Quotas: what a mesh and one member may keep and write.

use claudemesh_protocol::features::vault::limits::MAX_VALUE_BYTES;

use crate::quota::Quota;

/// A write reads the sizes of all of them, hence the largest value.
pub const PER_MESH: Quota =
    Quota::new("vault.per_mesh", 2_000, "Vault entries of a mesh; at most 10000.").at_most(10_000);
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota = Quota::new("vault.per_member", 200, "Vault entries of one member.");
/// Secrets are short; a few certificate chains have room.
pub const BYTES_PER_MESH: Quota = Quota::new("vault.bytes_per_mesh", 16 << 20, "Bytes of all sealed values of a mesh.");
/// As the number.
pub const BYTES_PER_MEMBER: Quota =
    Quota::new("vault.bytes_per_member", 4 << 20, "Bytes of the sealed values of one member.");
/// As the wire has it.
pub const BYTES_PER_VALUE: Quota =
    Quota::new("vault.bytes_per_value", MAX_VALUE_BYTES as u64, "Bytes of one value; at most 49152.")
        .at_most(MAX_VALUE_BYTES as u64);
/// A script that stores in a loop does it by mistake.
pub const WRITES_PER_MINUTE: Quota =
    Quota::new("vault.writes_per_minute", 60, "Vault entries that one member stores or deletes in a minute.");

/// All of them.
pub const ALL: &[&Quota] =
    &[&PER_MESH, &PER_MEMBER, &BYTES_PER_MESH, &BYTES_PER_MEMBER, &BYTES_PER_VALUE, &WRITES_PER_MINUTE];
