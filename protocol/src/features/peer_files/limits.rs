//! Bounds of peers' folders on the wire, each with its reason.

/// Bytes of a path below the folder: what systems allow.
pub const MAX_PATH_BYTES: usize = 4_096;
/// Characters of a glob: one that a person writes.
pub const MAX_PATTERN_CHARS: usize = 200;
/// Bytes of one read: a text that a model can use. More is read in several.
pub const MAX_READ_BYTES: u64 = 1 << 20;
/// Bytes of one sealed part: sealed and in base64 twice it stays far below the largest frame.
pub const MAX_PART_BYTES: u64 = 262_144;
/// Largest file that a plain answer carries, whole.
pub const MAX_PLAIN_BYTES: u64 = 1 << 20;
/// Entries of one list.
pub const MAX_ENTRIES: usize = 1_000;
/// Bytes of the paths of one list, so that it stays far below the largest frame.
pub const MAX_LIST_BYTES: usize = 262_144;
/// Entries of a plain list, as older clients have it.
pub const MAX_PLAIN_ENTRIES: usize = 500;
/// Folders that a list goes down when no one says how many.
pub const USUAL_DEPTH: u32 = 2;
/// Folders that a list goes down at most.
pub const MAX_DEPTH: u32 = 8;
/// How long older clients wait.
pub const USUAL_WAIT_MS: u64 = 15_000;
/// Shortest time that a caller may wait: the peer's disk needs some.
pub const MIN_WAIT_MS: u64 = 1_000;
/// Longest time that a caller may wait: a person at the peer decides.
pub const MAX_WAIT_MS: u64 = 120_000;
/// A sealed request may be this far from the clock of who opens it, both ways, in milliseconds: later it is taken for a repetition.
pub const MAX_SKEW_MS: i64 = 600_000;
