//! Permission questions of a session, answered by named members of the mesh. Off until someone is named.
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
use crate::session::admit::Intercept;
use crate::session::{JoinedMesh, Session};

pub mod answer;
pub mod ask;
pub mod audit;
pub mod channel;
pub mod cli;
pub mod pending_requests;
pub mod poll;
pub mod preview;
pub mod rules;
pub mod text;
pub mod tools;
pub mod wire;

/// The words of this feature among the incoming messages.
pub struct Words;

impl Intercept for Words {
    async fn intercept(session: &Session, bound: &JoinedMesh) -> Result<(), InboxError> {
        settle(session, bound).await;
        Ok(())
    }
}

/// Takes answers and notes of settled questions out of the inbox before any route shows them, and counts the answers. A
/// fault is logged; what was not taken is found by the next call.
pub async fn settle(session: &Session, bound: &JoinedMesh) {
    let (requests, store, bound) = (session.permissions.clone(), session.store().clone(), bound.clone());
    // A task of its own: an answer that was taken is counted even when the caller is gone meanwhile.
    let settling = tokio::spawn(async move { pending_requests::settle(&requests, &store, &bound).await });
    if let Err(error) = settling.await {
        tracing::error!(%error, "permission answers were not counted");
    }
}

/// Whether a message belongs to this feature.
pub fn is_ours(message: &Message) -> bool {
    matches!(message.subtype.as_deref(), Some(REQUEST | ANSWER | CLOSED))
}
