//! Bounds of contexts on the wire, each with its reason.

/// Bytes of a summary: some paragraphs.
pub const MAX_SUMMARY_BYTES: usize = 8_192;
/// Files, findings and tags of one context, each.
pub const MAX_ITEMS: usize = 200;
/// Bytes of one file name or finding.
pub const MAX_ITEM_BYTES: usize = 1_024;
/// Characters of one tag.
pub const MAX_TAG_CHARS: usize = 64;
/// Bytes of a whole context: what one session has in mind, not what it has read.
pub const MAX_CONTEXT_BYTES: usize = 32_768;
/// Bytes of a query: a sentence or two.
pub const MAX_QUERY_BYTES: usize = 1_024;
/// Words and phrases of a query.
pub const MAX_QUERY_WORDS: usize = 32;
/// Rows of one page.
pub const MAX_PAGE: u32 = 100;
/// Rows of a page when no number is asked for.
pub const USUAL_PAGE: u32 = 20;
/// Bytes of the rows of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
