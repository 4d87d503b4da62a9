//! Bounds of state on the wire, each with its reason.

/// Bytes of a key: a path or a name, not a document.
pub const MAX_KEY_BYTES: usize = 512;
/// Bytes of a value as compact JSON: shared facts; documents are files.
pub const MAX_VALUE_BYTES: usize = 262_144;
/// Rows of one page.
pub const MAX_PAGE: u32 = 1_000;
/// Bytes of the values of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Longest `ttl_s`: a year. What is to stay longer needs no end.
pub const MAX_TTL_S: u64 = 31_536_000;
/// The key with the template of the mesh. Every session reads it as advice when it comes, so only those who may manage the mesh write it.
pub const TEMPLATE_KEY: &str = "mesh-template";
