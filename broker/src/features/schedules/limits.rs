//! Quotas: what a mesh and one member may schedule.

use crate::quota::Quota;

/// What the broker is measured with.
pub const PER_MESH: Quota =
    Quota::new("schedules.per_mesh", 100_000, "Schedule entries of a mesh that wait or are paused.");
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota =
    Quota::new("schedules.per_member", 50_000, "Schedule entries of one member that wait or are paused.");
/// Each of them may send a message a minute for ever: as much as a busy member sends by hand.
pub const RECURRING_PER_MEMBER: Quota =
    Quota::new("schedules.recurring_per_member", 2_000, "Recurring schedule entries of one member.");
/// A kilobyte for each entry, and room for a few large ones.
pub const BYTES_PER_MESH: Quota =
    Quota::new("schedules.bytes_per_mesh", 256 << 20, "Bytes of all scheduled messages of a mesh.");
/// As the number.
pub const BYTES_PER_MEMBER: Quota =
    Quota::new("schedules.bytes_per_member", 128 << 20, "Bytes of the scheduled messages of one member.");
/// A script that schedules in a loop does it by mistake.
pub const CHANGES_PER_MINUTE: Quota =
    Quota::new("schedules.changes_per_minute", 1_200, "Schedule entries that one member makes or changes in a minute.");

/// All of them.
pub const ALL: &[&Quota] =
    &[&PER_MESH, &PER_MEMBER, &RECURRING_PER_MEMBER, &BYTES_PER_MESH, &BYTES_PER_MEMBER, &CHANGES_PER_MINUTE];
