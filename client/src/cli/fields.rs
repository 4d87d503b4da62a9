//! The fields that `--json=FIELDS` can name, per verb, so that a mistyped one is found before anything is done: `inbox`
//! shows a message once.

use super::Verb;

/// The fields of a verb's objects, those too that only some objects have; none when only the answer tells.
pub fn of(verb: &Verb) -> &'static [&'static str] {
    match verb {
        Verb::Inbox(_) | Verb::Held(_) => MESSAGE,
        Verb::Peers(_) => PEER,
        Verb::Send(_) => SENT,
        Verb::Ask(_) => ASKED,
        Verb::Reply(_) => REPLIED,
        Verb::MsgStatus(_) => RECEIPT,
        Verb::Profile(_) => PROFILE,
        Verb::List(_) => MESH,
        Verb::Bans(_) => BAN,
        _ => &[],
    }
}

const MESSAGE: &[&str] = &[
    "messageId",
    "mesh",
    "senderPubkey",
    "senderMemberPubkey",
    "senderName",
    "targetSpec",
    "kind",
    "priority",
    "createdAt",
    "receivedAt",
    "plaintext",
    "seen",
    "topic",
    "replyToId",
    "subtype",
    "event",
    "eventData",
    "state",
    "ok",
    "released",
    "dropped",
];
const PEER: &[&str] = &[
    "name",
    "displayName",
    "mesh",
    "isSelf",
    "pubkey",
    "memberPubkey",
    "memberId",
    "status",
    "summary",
    "groups",
    "sessionId",
    "connectedAt",
    "cwd",
    "peerRole",
    "role",
    "online",
    "lastSeenAt",
    "waiting",
    "hostname",
    "peerType",
    "channel",
    "model",
    "stats",
    "visible",
    "profile",
    "peers",
];
const SENT: &[&str] = &[
    "ok",
    "messageId",
    "target",
    "name",
    "via",
    "duplicate",
    "status",
    "recipientOnline",
    "online",
    "waiting",
    "recipients",
];
const ASKED: &[&str] = &[
    "ok",
    "messageId",
    "to",
    "elapsedMs",
    "mesh",
    "status",
    "from",
    "answer",
    "answerId",
    "reason",
    "message",
    "question",
];
const REPLIED: &[&str] = &["ok", "messageId", "answerId", "declined", "to", "mesh", "status", "online"];
const RECEIPT: &[&str] = &["messageId", "targetSpec", "delivered", "deliveredAt", "stage", "recipients"];
const PROFILE: &[&str] =
    &["avatar", "title", "bio", "capabilities", "name", "sessionId", "profile", "sessions", "mesh", "ok"];
const MESH: &[&str] =
    &["slug", "name", "meshId", "memberId", "pubkey", "brokerUrl", "joinedAt", "owner", "lostOutsideUrl"];
const BAN: &[&str] = &["name", "pubkey", "revokedAt"];
