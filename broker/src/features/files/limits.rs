//! Quotas: what a mesh and one member may keep and transfer.

use crate::quota::Quota;

/// A list is read in pages, and a look by name reads all of them.
pub const PER_MESH: Quota = Quota::new("files.per_mesh", 20_000, "Files and unfinished uploads of a mesh.");
/// No one is to use up the mesh's.
pub const PER_MEMBER: Quota =
    Quota::new("files.per_member", 5_000, "Files and unfinished uploads of a mesh that one member has shared.");
/// What a disk of a small server has to spare.
pub const BYTES_PER_MESH: Quota =
    Quota::new("files.bytes_per_mesh", 20 << 30, "Bytes of all files of a mesh, with what uploads have reserved.");
/// As the number.
pub const BYTES_PER_MEMBER: Quota = Quota::new(
    "files.bytes_per_member",
    5 << 30,
    "Bytes of the files that one member has shared, with what its uploads have reserved.",
);
/// An image of a disk, a long recording.
pub const BYTES_PER_FILE: Quota = Quota::new("files.bytes_per_file", 4 << 30, "Bytes of one file.");
/// Each one holds what it has reserved.
pub const UPLOADS_PER_MEMBER: Quota =
    Quota::new("files.uploads_per_member", 32, "Uploads that one member has begun and not finished.");
/// Each one is told to those it is for.
pub const SHARES_PER_MINUTE: Quota =
    Quota::new("files.shares_per_minute", 300, "Uploads that one member begins in a minute.");
/// Grants and the like are told, too.
pub const CHANGES_PER_MINUTE: Quota = Quota::new(
    "files.changes_per_minute",
    300,
    "Grants, revocations and deletions of files that one member makes in a minute.",
);
/// Each one is a row of the access log.
pub const READS_PER_MINUTE: Quota =
    Quota::new("files.reads_per_minute", 1_200, "Files that one member asks for in a minute.");
/// Enough to fill a line; more share the same line.
pub const TRANSFERS_PER_MEMBER: Quota =
    Quota::new("files.transfers_per_member", 8, "Uploads and downloads of one member that run at once.");

/// All of them.
pub const ALL: &[&Quota] = &[
    &PER_MESH,
    &PER_MEMBER,
    &BYTES_PER_MESH,
    &BYTES_PER_MEMBER,
    &BYTES_PER_FILE,
    &UPLOADS_PER_MEMBER,
    &SHARES_PER_MINUTE,
    &CHANGES_PER_MINUTE,
    &READS_PER_MINUTE,
    &TRANSFERS_PER_MEMBER,
];
