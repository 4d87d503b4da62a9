//! Every bound of the wire, each with its reason. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// Largest WebSocket message in either direction. The reference closes at 64 KiB; long texts and relayed files
/// need more, so ours accepts 1 MiB of payload plus room for base64 and JSON.
pub const MAX_FRAME_BYTES: usize = 1_500_000;
/// Largest message before the hello, and the hello itself: what someone unknown may make the broker collect.
pub const MAX_HELLO_BYTES: usize = 65_536;
/// `ciphertext` + `nonce` + `targetSpec` of one `send`, in characters: 1 MiB of text after base64.
pub const MAX_MESSAGE_CHARS: usize = 1_400_000;
/// `_reqId`, `id`, `client_message_id`: identifiers, not payload.
pub const MAX_ID_CHARS: usize = 128;
/// `targetSpec` as one string.
pub const MAX_TARGET_CHARS: usize = 256;
/// Recipients in one array target; larger audiences are groups.
pub const MAX_TARGETS: usize = 64;
/// `displayName`: shown in lists and in front of messages.
pub const MAX_NAME_CHARS: usize = 64;
/// `summary` of a peer: one or two sentences.
pub const MAX_SUMMARY_CHARS: usize = 2_000;
/// `cwd`, `hostname`, `model`, `channel`: shown to peers.
pub const MAX_TEXT_CHARS: usize = 1_024;
/// Groups one session may be in.
pub const MAX_GROUPS: usize = 64;
/// Length of a group name; `/` separates levels.
pub const MAX_GROUP_CHARS: usize = 64;
/// Encoded `profile` of a peer.
pub const MAX_PROFILE_BYTES: usize = 8_192;
/// Encoded `stats` object of a peer.
pub const MAX_STATS_BYTES: usize = 2_048;
/// Capability words in a hello.
pub const MAX_CAPABILITIES: usize = 32;
/// Ids in one batched `client_ack`.
pub const MAX_ACK_IDS: usize = 512;
/// Mentions of one topic message.
pub const MAX_MENTIONS: usize = 16;
/// Body of an HTTP request that carries JSON.
pub const MAX_HTTP_BODY_BYTES: usize = 65_536;

/// A hello or a signed HTTP request may be this far from the broker's clock, both ways, inclusive.
pub const MAX_CLOCK_SKEW_MS: i64 = 60_000;
/// A session attestation may expire at most this far ahead.
pub const MAX_ATTESTATION_TTL_MS: i64 = 24 * 3_600_000;
/// Lifetime of the attestations our client mints; one per connection, so it never expires in use.
pub const ATTESTATION_TTL_MS: i64 = 12 * 3_600_000;
/// The first frame of a socket must be a hello within this time.
pub const FIRST_FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// A closed socket keeps its place in the roster this long.
pub const LEASE_GRACE: Duration = Duration::from_secs(90);
/// Time between pings from the broker.
pub const PING_INTERVAL: Duration = Duration::from_secs(25);
/// A peer that was silent this long is gone.
pub const STALE_AFTER: Duration = Duration::from_secs(75);
/// `working` without any sign of activity becomes `idle` after this time, so a lost Stop hook cannot hold messages for ever.
pub const WORKING_TTL: Duration = Duration::from_secs(600);
/// A hook status that matches no session yet is kept this long.
pub const PENDING_HOOK_TTL: Duration = Duration::from_secs(10);
/// Undelivered messages are kept this long.
pub const QUEUE_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Unacknowledged pushes per session; the rest waits in storage.
pub const MAX_IN_FLIGHT: usize = 256;
/// Bytes of unacknowledged pushes per session.
pub const MAX_IN_FLIGHT_BYTES: usize = 1 << 20;
/// Pushes to a client that never acknowledges which do not count as delivered yet. What has left its queue holds no memory
/// but its id, so there may be more of them.
pub const MAX_UNCONFIRMED: usize = 4_096;
/// A push to a client that never acknowledges counts as delivered when its socket stayed open so long after the frame had left.
/// Longer than [`PING_INTERVAL`]: within it, a peer that is there was heard of.
pub const STAYED_OPEN: Duration = Duration::from_secs(30);
/// Bytes of messages and events that wait for one socket: the pushes in flight, and events beside them. More messages wait
/// in storage, more events are dropped.
pub const MAX_QUEUED_PUSH_BYTES: usize = 2 << 20;
/// The same with the answers to its own requests, which are never dropped: beyond it the socket is closed.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;
/// Connections per mesh unless the operator says otherwise.
pub const MAX_CONNECTIONS_PER_MESH: usize = 10_000;
/// Messages of one trace in [`TRACE_WINDOW`] before it is stopped: agents answering each other for ever.
pub const TRACE_BUDGET: u32 = 60;
/// Window of [`TRACE_BUDGET`].
pub const TRACE_WINDOW: Duration = Duration::from_secs(600);
/// Messages a minute from one sender to one recipient.
pub const PAIR_PER_MINUTE: u32 = 60;
/// Messages a minute from one member over all its sessions.
pub const MEMBER_PER_MINUTE: u32 = 600;
/// Frames a second from one connection, with a burst of four seconds.
pub const FRAMES_PER_SECOND: u32 = 200;
/// Hook calls a minute from one hook token and process.
pub const HOOK_PER_MINUTE: u32 = 120;
/// Bad frames in a row after which the socket is closed: a broken or hostile peer.
pub const MAX_BAD_FRAMES: u32 = 100;

/// An invite may be open for at most this many days: a year, leap years included.
pub const MAX_INVITE_DAYS: u64 = 366;

/// The name that a member or a session had before it was renamed means it for so long: what others have written down still works
/// the next day, and then the name is free.
pub const FORMER_NAME_TTL: Duration = Duration::from_secs(24 * 3_600);

/// A bound in whole milliseconds, as clocks count.
pub const fn millis(bound: Duration) -> i64 {
    let millis = bound.as_millis();
    if millis > i64::MAX as u128 { i64::MAX } else { millis as i64 }
}
