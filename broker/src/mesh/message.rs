//! A message of the mesh, as features hand it to each other and as it is stored.

use std::sync::Arc;

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::id::{MemberId, MeshId, MessageId, PublicKey, TopicId};

/// A message is kept this long for receipts and retries, in milliseconds: 7 days.
pub const QUEUE_KEPT_MS: i64 = 7 * 86_400_000;

/// One message. Its `seq` orders it within its mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// Mesh.
    pub mesh_id: MeshId,
    /// Place in the mesh's order; unique in the mesh.
    pub seq: i64,
    /// Id that pushes carry; unique.
    pub id: MessageId,
    /// Who sent it.
    pub sender_member_id: MemberId,
    /// Key to answer to: the sender's session key, else its member key.
    pub sender_key: PublicKey,
    /// The sender's member key.
    pub sender_member_key: PublicKey,
    /// The sender's name at that time.
    pub sender_name: String,
    /// What the sender wrote as target; a JSON array when it named several.
    pub target_spec: Arc<str>,
    /// Urgency.
    pub priority: Priority,
    /// Base64, opaque.
    pub nonce: String,
    /// Base64, opaque.
    pub ciphertext: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds; undelivered copies end then.
    pub expires_at_ms: i64,
    /// The sender's idempotency key; unique per sender in the mesh.
    pub client_message_id: Option<Arc<str>>,
    /// The sender's fingerprint of the request.
    pub request_fingerprint: Option<Arc<str>>,
    /// The message it answers.
    pub reply_to_id: Option<String>,
    /// `question`, `reply`, …
    pub subtype: Option<String>,
    /// Topic it was written to.
    pub topic_id: Option<TopicId>,
    /// Name of that topic at that time.
    pub topic_name: Option<String>,
    /// Version of the body encoding.
    pub body_version: i32,
    /// Exchange it belongs to.
    pub trace_id: Option<String>,
    /// Hops in that exchange.
    pub trace_hop: u32,
}

impl NewMessage {
    /// A message without target, body and anything optional.
    pub fn new(mesh_id: MeshId, seq: i64, id: MessageId, sender: (MemberId, PublicKey), created_at_ms: i64) -> Self {
        Self {
            mesh_id,
            seq,
            id,
            sender_member_id: sender.0,
            sender_key: sender.1,
            sender_member_key: sender.1,
            sender_name: String::new(),
            target_spec: "".into(),
            priority: Priority::default(),
            nonce: String::new(),
            ciphertext: String::new(),
            created_at_ms,
            expires_at_ms: created_at_ms.saturating_add(QUEUE_KEPT_MS),
            client_message_id: None,
            request_fingerprint: None,
            reply_to_id: None,
            subtype: None,
            topic_id: None,
            topic_name: None,
            body_version: 1,
            trace_id: None,
            trace_hop: 0,
        }
    }
}
