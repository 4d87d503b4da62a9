//! Bounds of files on the wire, each with its reason. What a mesh and a member may keep are quotas of the broker.

/// Bytes of a file name: what file systems allow.
pub const MAX_NAME_BYTES: usize = 255;
/// Tags of one file.
pub const MAX_TAGS: usize = 16;
/// Characters of one tag: a word or two.
pub const MAX_TAG_CHARS: usize = 64;
/// Characters of a content type.
pub const MAX_CONTENT_TYPE_CHARS: usize = 128;
/// Characters of the word that says how the bytes are sealed.
pub const MAX_ENCRYPTION_CHARS: usize = 32;
/// Characters of a sealed name with its tags, in base64: room for the longest name and all tags.
pub const MAX_SEALED_META_CHARS: usize = 8_192;
/// Characters of one sealed key in base64. A sealed 32-byte key has 108.
pub const MAX_SEALED_KEY_CHARS: usize = 512;
/// Readers whose key is sealed when an upload begins; more are granted afterwards.
pub const MAX_KEYS: usize = 512;
/// Readers that one file can have a key or a grant for in all.
pub const MAX_READERS: usize = 10_000;
/// Bytes of the query of a list: a part of a name.
pub const MAX_QUERY_BYTES: usize = 255;
/// Rows of one page, and of a page when no number is asked for: clients of before read so many.
pub const MAX_PAGE: u32 = 100;
/// Bytes of the rows of one page, so that an answer stays far below the largest frame.
pub const MAX_PAGE_BYTES: usize = 786_432;
/// Rows of a page of readers.
pub const MAX_READERS_PAGE: u32 = 500;
/// Rows of the access log that are kept of a file, and told.
pub const MAX_ACCESSES: usize = 1_000;
/// Seconds that a file is kept when it is neither persistent nor has a time of its own: a day.
pub const DEFAULT_TTL_S: u64 = 86_400;
/// Shortest time that a file can be kept, in seconds.
pub const MIN_TTL_S: u64 = 60;
/// Longest time of a file that is not persistent, in seconds: a year.
pub const MAX_TTL_S: u64 = 366 * 86_400;
/// An upload without a byte for so long is given up, in seconds.
pub const UPLOAD_IDLE_S: u64 = 86_400;
/// A URL to read a file from is good for so long, in seconds. A transfer that has begun goes on.
pub const DOWNLOAD_URL_S: u64 = 300;
/// A URL to upload to is good for so long, in seconds; `upload_status` gives a new one. A transfer that has begun goes on.
pub const UPLOAD_URL_S: u64 = 3_600;
/// Bytes of one part inside the broker: no more than one part is lost when a connection breaks off.
pub const PART_BYTES: u64 = 2 << 20;
