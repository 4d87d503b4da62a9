//! Bounds of SQL on the wire, each with its reason.

/// Bytes of one statement: a long report, or a table with a thousand columns.
pub const MAX_SQL_BYTES: usize = 262_144;
/// Statements of one `mesh_execute`, and runs of one statement: the frame bounds their bytes.
pub const MAX_STATEMENTS: usize = 50_000;
/// Parameters of one statement.
pub const MAX_PARAMS: usize = 1_000;
/// Rows of one page.
pub const MAX_PAGE: u32 = 10_000;
/// Rows of a page when no number is asked for.
pub const USUAL_PAGE: u32 = 1_000;
/// Bytes of the rows of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Characters of a name by which a request can be cancelled.
pub const MAX_CANCEL_KEY_CHARS: usize = 64;
/// The largest whole number that JSON carries exactly everywhere: 2^53. Larger ones are texts.
pub const MAX_EXACT: i64 = 9_007_199_254_740_992;
