//! Bounds of schedules on the wire, each with its reason.

/// Bytes of a message as it is sent later, as base64: a reminder, not a document. Many of them are read at once when they are due.
pub const MAX_BODY_CHARS: usize = 65_536;
/// Targets of one entry.
pub const MAX_TARGETS: usize = 16;
/// Characters of a cron expression: every field as a list of all its values has fewer.
pub const MAX_CRON_CHARS: usize = 1_024;
/// Characters of the name of a time zone; the longest has 32.
pub const MAX_ZONE_CHARS: usize = 64;
/// Entries of one page, and of an answer to a client that knows no pages.
pub const MAX_PAGE: u32 = 500;
/// Bytes of the messages of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Next times that a list shows of a recurring entry.
pub const NEXT_TIMES: usize = 3;
/// Times that were missed and are made up for with the plan `all`: the first ones.
pub const MAX_MADE_UP: usize = 100;
