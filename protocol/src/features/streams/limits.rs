//! Bounds of streams on the wire, each with its reason.

/// Characters of a stream's name.
pub const MAX_NAME_CHARS: usize = 128;
/// Characters of a consumer's name.
pub const MAX_CONSUMER_CHARS: usize = 64;
/// Bytes of one entry as compact JSON: events; documents are files.
pub const MAX_DATA_BYTES: usize = 65_536;
/// Entries of one page.
pub const MAX_PAGE: u32 = 1_000;
/// Bytes of the data of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Longest time that entries are kept: a year, in seconds.
pub const MAX_KEEP_S: u64 = 31_536_000;
