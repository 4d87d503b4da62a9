//! [`Letter`]: a message that a feature writes.

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::target::TargetField;

use super::outcome::ReplyTo;

/// Whose message it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// The mesh itself: `senderPubkey` is `system`.
    System,
    /// A service or webhook of the mesh; the text is its `senderPubkey`, such as `webhook:ci`.
    Service(String),
    /// A member, without any of its sessions.
    Member(MemberId),
}

/// A message that a feature writes. It goes the way of `send`: recipients who are away find it when they return.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Whose message it is.
    pub from: Author,
    /// As in `send`: keys, names, groups, topics, everyone.
    pub to: TargetField,
    /// Urgency.
    pub priority: Priority,
    /// `system`, `webhook`, `reminder`, …
    pub subtype: Option<String>,
    /// Base64 of the nonce; empty for a body that is not sealed.
    pub nonce: String,
    /// Base64 of the body.
    pub body: String,
    /// The message it answers.
    pub reply_to_id: Option<String>,
    /// Idempotency key: a second letter of the same author with it is the same message, also on the next broker.
    pub key: Option<String>,
    /// Who learns what becomes of it, as the sender of a message does: an `ack`, or a refusal. `None`: no one waits.
    pub reply: Option<ReplyTo>,
}
