//! Questions that wait for their answer.
//!
//! A question is a direct message with the subtype `question`, its answer a message that refers to it. `text` is what
//! hooks show of them, `wait` hands answers to whoever waits in this process, `ask` and `reply` send for the tools and for
//! the shell.

use crate::mcp::hub::{Bound, Hub};

pub mod ask;
pub mod cli;
pub mod register;
pub mod reply;
pub mod text;
pub mod tools;
pub mod wait;

/// Hands what has arrived for the waits of this session to them, so that no other route shows it. Every route calls this
/// before it takes messages out of the inbox. A fault is logged; the next event or sign of life tries again.
pub async fn settle(hub: &Hub, bound: &Bound) {
    if bound.waits.is_empty() {
        return;
    }
    // What the rule for incoming messages holds back ends no wait.
    let ruled = crate::inbound::apply(hub, bound).await;
    let settled = match ruled {
        Ok(()) => wait::settle(&bound.waits, &bound.mailbox, &bound.reader(), true).await,
        Err(error) => Err(error),
    };
    if let Err(error) = settled {
        tracing::error!(mesh.slug = bound.tag.slug, %error, "answers cannot be handed to who waits for them");
    }
}
