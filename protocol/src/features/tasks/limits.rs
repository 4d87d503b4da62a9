//! Bounds of tasks on the wire, each with its reason.

/// Characters of a title: one line of a list.
pub const MAX_TITLE_CHARS: usize = 1_000;
/// Characters of a description: what has to be known; documents are files.
pub const MAX_DESCRIPTION_CHARS: usize = 16_384;
/// Bytes of a result: an answer; documents are files.
pub const MAX_RESULT_BYTES: usize = 65_536;
/// Characters of an assignee: a name, a group or a key.
pub const MAX_ASSIGNEE_CHARS: usize = 128;
/// Tags of one task.
pub const MAX_TAGS: usize = 32;
/// Characters of one tag.
pub const MAX_TAG_CHARS: usize = 64;
/// Tasks that one task waits for, and that wait for one task.
pub const MAX_DEPENDENCIES: usize = 256;
/// Rows of one page, and of the answer to a change without `confirm`.
pub const MAX_PAGE: u32 = 100;
/// Bytes of the texts of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Tasks that a session is told of when it arrives: as many as one reads. The list has the rest.
pub const MAX_WAITING: u32 = 5;
/// Entries of the history that one task keeps; the oldest go first.
pub const MAX_HISTORY: usize = 200;
