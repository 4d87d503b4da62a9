//! Permission questions of a session, answered by named members of the mesh. Off until somebody is named.
//!
//! When the host asks its user whether a tool may run, the session's server sends the question, sealed, to the approvers
//! that the user has named for that mesh ([`rules`]). A person there decides, in a shell or by confirming a tool call, and
//! the answer carries a signature of that person's member key over the very call ([`wire`]). Only such a signature decides
//! ([`poll`]): what a message says never does. Everything that happens is in a log that shows when it was changed
//! ([`audit`]), and what cannot be written there is not decided.
//!
//! [`ask`] is the asking end, [`answer`] the other one; [`cli`] and [`tools`] are their verbs and tool, [`text`] is what
//! people and models see of the messages. The user at the session's own dialog can always decide first.

pub use crate::inbox::permissions::{ANSWER, CLOSED, REQUEST, ROUTE};
use crate::inbox::{InboxError, Message};
use crate::mcp::admit::Intercept;
use crate::mcp::hub::{Bound, Hub};

pub mod answer;
pub mod ask;
pub mod audit;
pub mod board;
pub mod channel;
pub mod cli;
pub mod poll;
pub mod preview;
pub mod rules;
pub mod text;
pub mod tools;
pub mod wire;

/// The words of this feature among the incoming messages.
pub struct Words;

impl Intercept for Words {
    async fn intercept(hub: &Hub, bound: &Bound) -> Result<(), InboxError> {
        settle(hub, bound).await;
        Ok(())
    }
}

/// Takes answers and notes of settled questions out of the inbox before any route shows them, and counts the answers. A
/// fault is logged; what was not taken is found by the next call.
pub async fn settle(hub: &Hub, bound: &Bound) {
    let (board, store, bound) = (hub.permissions.clone(), hub.store().clone(), bound.clone());
    // A task of its own: an answer that was taken is counted even when whoever called is gone meanwhile.
    let settling = tokio::spawn(async move { board::settle(&board, &store, &bound).await });
    if let Err(error) = settling.await {
        tracing::error!(%error, "permission answers were not counted");
    }
}

/// Whether a message belongs to this feature.
pub fn is_ours(message: &Message) -> bool {
    matches!(message.subtype.as_deref(), Some(REQUEST | ANSWER | CLOSED))
}
