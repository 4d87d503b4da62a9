//! Bounds of skills on the wire, each with its reason.

/// Bytes of one text with its description, tags and manifest: a guide. Longer material is a file.
pub const MAX_SKILL_BYTES: usize = 65_536;
/// Bytes of a description: models read it of every skill.
pub const MAX_DESCRIPTION_BYTES: usize = 2_048;
/// Bytes of a manifest as compact JSON.
pub const MAX_MANIFEST_BYTES: usize = 8_192;
/// Tags of one skill.
pub const MAX_TAGS: usize = 16;
/// Characters of one tag: a word or two.
pub const MAX_TAG_CHARS: usize = 64;
/// Bytes of a query: a sentence or two.
pub const MAX_QUERY_BYTES: usize = 1_024;
/// Words and phrases of a query; each one costs a look into the index.
pub const MAX_QUERY_WORDS: usize = 32;
/// Rows of one page, and of a page when no number is asked for: clients of before ask for all at once.
pub const MAX_PAGE: u32 = 500;
/// Bytes of the rows of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
