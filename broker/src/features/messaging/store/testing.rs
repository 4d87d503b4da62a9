//! A message for tests of what is written.

use claudemesh_protocol::id::{MeshId, random_id};

use super::types::NewMessage;
use crate::db::testing::{NOW, key};

/// A message of no one in particular at this place in the order.
pub(crate) fn message(mesh: &MeshId, seq: i64) -> NewMessage {
    NewMessage {
        sender_name: "Ada".into(),
        target_spec: "Bob".into(),
        nonce: "bm9uY2U=".into(),
        ciphertext: "Y2lwaGVy".into(),
        ..NewMessage::new(mesh.clone(), seq, random_id(&mut rand::rngs::OsRng).into(), ("sender".into(), key()), NOW)
    }
}
