//! A message for tests of what is written.

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::id::{MeshId, random_id};

use super::store::QUEUE_KEPT_MS;
use super::types::NewMessage;
use crate::db::testing::{NOW, key};

/// A message of nobody in particular at this place in the order.
pub(crate) fn message(mesh: &MeshId, seq: i64) -> NewMessage {
    NewMessage {
        mesh_id: mesh.clone(),
        seq,
        id: random_id(&mut rand::rngs::OsRng).into(),
        sender_member_id: "sender".into(),
        sender_key: key(),
        sender_member_key: key(),
        sender_name: "Ada".into(),
        target_spec: "Bob".into(),
        priority: Priority::Next,
        nonce: "bm9uY2U=".into(),
        ciphertext: "Y2lwaGVy".into(),
        created_at_ms: NOW,
        expires_at_ms: NOW + QUEUE_KEPT_MS,
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
