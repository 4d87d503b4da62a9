//! Bounds of memory on the wire, each with its reason.

/// Bytes of one memory: a fact with its reasons. Documents are files.
pub const MAX_CONTENT_BYTES: usize = 32_768;
/// Tags of one memory.
pub const MAX_TAGS: usize = 16;
/// Characters of one tag: a word or two.
pub const MAX_TAG_CHARS: usize = 64;
/// Bytes of a query: a sentence or two.
pub const MAX_QUERY_BYTES: usize = 1_024;
/// Words and phrases of a query; each one costs a look into the index.
pub const MAX_QUERY_WORDS: usize = 32;
/// Rows of one page.
pub const MAX_PAGE: u32 = 100;
/// Rows of a page when no number is asked for.
pub const USUAL_PAGE: u32 = 20;
/// Bytes of the rows of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Fewest characters of an id that stand for the whole: as many as lists show.
pub const MIN_ID_CHARS: usize = 8;
