//! Questions that wait for their answer.
//!
//! A question is a direct message with the subtype `question`, its answer a message that refers to it. `text` is what
//! hooks show of them, `wait` hands answers to whoever waits in this process.

use crate::mcp::hub::{Bound, Hub};

pub mod text;
pub mod wait;

/// Hands what has arrived for the waits of this session to them, so that no other route shows it. Every route calls this
/// before it takes messages out of the inbox. A fault is logged: the messages are shown by the route then.
pub async fn settle(_hub: &Hub, bound: &Bound) {
    if let Err(error) = wait::settle(&bound.waits, &bound.mailbox, &bound.reader()).await {
        tracing::error!(mesh.slug = bound.tag.slug, %error, "answers cannot be handed to who waits for them");
    }
}
