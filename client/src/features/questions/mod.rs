//! Questions that wait for their answer.
//!
//! A question is a direct message with the subtype `question`, its answer a message that refers to it. `text` is what
//! hooks show of them, `wait` hands answers to anyone who waits in this process, `ask` and `reply` send for the tools and for
//! the shell.

use crate::inbox::InboxError;
use crate::session::admit::Intercept;
use crate::session::{JoinedMesh, Session};

pub mod ask;
pub mod cli;
pub mod register;
pub mod reply;
pub mod text;
pub mod tools;
pub mod wait;

/// Hands what has arrived for the waits of this session to them, so that no other route shows it.
pub struct Answers;

impl Intercept for Answers {
    async fn intercept(_session: &Session, bound: &JoinedMesh) -> Result<(), InboxError> {
        if !bound.waits.is_empty()
            && let Err(error) = wait::settle(&bound.waits, &bound.mailbox, &bound.reader(), true).await
        {
            // The inbox goes on withholding them; the next event or sign of life tries again.
            tracing::error!(mesh.slug = bound.tag.slug, %error, "answers cannot be handed to who waits for them");
        }
        Ok(())
    }
}

/// Lets the waits of this session have what has arrived for them. Costs nothing while no one waits.
pub async fn settle(session: &Session, bound: &JoinedMesh) {
    if bound.waits.is_empty() {
        return;
    }
    if let Err(error) = session.admit(bound).await {
        tracing::error!(mesh.slug = bound.tag.slug, %error, "answers cannot be handed to who waits for them");
    }
}
