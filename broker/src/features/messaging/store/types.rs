//! What is written and read back: messages, deliveries, receipts.

use std::sync::Arc;

use claudemesh_protocol::features::messaging::{Priority, Stage};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};

pub use crate::mesh::message::NewMessage;
pub use crate::mesh::resolve::RecipientKind;

/// A message read back.
pub type StoredMessage = NewMessage;

/// One copy of a message for one recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    /// Mesh.
    pub mesh_id: MeshId,
    /// The message.
    pub seq: i64,
    /// Session key, or member key.
    pub recipient_key: PublicKey,
    /// Which of them.
    pub kind: RecipientKind,
    /// Member behind the recipient.
    pub member_id: MemberId,
    /// Urgency, copied from the message.
    pub priority: Priority,
    /// Size on the wire, for the limit in flight.
    pub size_bytes: u32,
}

/// A recipient's copy read back, with its receipt.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDelivery {
    /// The message.
    pub seq: i64,
    /// Session key, or member key.
    pub recipient_key: PublicKey,
    /// Which of them.
    pub kind: RecipientKind,
    /// Member behind the recipient.
    pub member_id: MemberId,
    /// Urgency.
    pub priority: Priority,
    /// Size on the wire.
    pub size_bytes: u32,
    /// Highest proved step; `None` once expired.
    pub stage: Option<Stage>,
    /// When that step was reached, Unix milliseconds.
    pub stage_at_ms: Option<i64>,
    /// Route of `handed` and above.
    pub route: Option<String>,
}

/// A receipt: the delivery climbs to `stage`, never down.
#[derive(Clone, Debug, PartialEq)]
pub struct StageUpdate {
    /// Mesh.
    pub mesh_id: MeshId,
    /// The message.
    pub seq: i64,
    /// The delivery's recipient key.
    pub recipient_key: PublicKey,
    /// The step.
    pub stage: Stage,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Route, when the step names one; an earlier route is kept otherwise.
    pub route: Option<String>,
}

/// What messaging writes in one transaction of the journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MessagingPart {
    /// Messages, shared with the queues in memory.
    pub messages: Vec<Arc<NewMessage>>,
    /// Their deliveries.
    pub deliveries: Vec<NewDelivery>,
    /// Receipts, also for deliveries of this batch.
    pub stages: Vec<StageUpdate>,
}

/// Waiting messages of one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingCounts {
    /// Whether the key is a session's or a member's.
    pub kind: RecipientKind,
    /// Counts by urgency: now, next, low.
    pub counts: [u32; 3],
}
