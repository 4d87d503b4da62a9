//! What a person orders at the shell, done by the session's server. The shell gives orders outside of sessions only.

use claudemesh_protocol::error::ErrorCode;

use super::consent::Decision;
use super::report::{Order, Report};
use crate::session::Session;

/// Does it, and says how it stands then.
///
/// # Errors
/// Code and words: no such question, or it cannot be done.
pub async fn carry_out(session: &Session, order: Order) -> Result<Report, (ErrorCode, String)> {
    match order {
        Order::Show => {}
        Order::Allow { id, scope } => {
            session.folder.decide(session, &id, Decision::Allow(scope)).await?;
        }
        Order::Deny { id } => {
            session.folder.decide(session, &id, Decision::Deny).await?;
        }
        Order::Revoke { member } => {
            session.folder.revoke(&member);
        }
    }
    Ok(session.folder.report(session))
}
