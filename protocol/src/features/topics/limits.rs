//! Bounds of topics on the wire, each with its reason.

/// Characters of a reaction: an emoji with its modifiers, or a short word.
pub const MAX_EMOJI_CHARS: usize = 16;
/// Different reactions that a message shows; more say nothing.
pub const MAX_EMOJI_PER_MESSAGE: usize = 20;
/// Characters of a search.
pub const MAX_QUERY_CHARS: usize = 256;
/// Fewest characters of a search: one letter is in every message.
pub const MIN_QUERY_CHARS: usize = 2;
/// Hits of one answer.
pub const MAX_HITS: u32 = 50;
/// Hits when no number is asked for.
pub const USUAL_HITS: u32 = 20;
/// Messages that one search looks through; the answer says where the next one goes on.
pub const MAX_SCANNED: u32 = 2_000;
/// Members that one message notifies.
pub const MAX_NOTIFIED: usize = 32;
/// Notifications of one answer.
pub const MAX_NOTIFICATIONS: u32 = 50;
/// Notifications that one request marks as read by id.
pub const MAX_MARKED: usize = 200;
/// Days that a topic may keep its messages.
pub const RETENTION_DAYS: std::ops::RangeInclusive<u32> = 1..=365;
/// Days that a topic keeps its messages unless it says otherwise.
pub const USUAL_RETENTION_DAYS: u32 = 30;
/// Members of a `dm` topic.
pub const DM_MEMBERS: usize = 2;
/// Messages that a follower who comes back is given at once; more, and it is told that it has to read the history.
pub const MAX_RECOVERED: u32 = 1_000;
