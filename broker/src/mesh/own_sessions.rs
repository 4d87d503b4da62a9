//! Which sessions of its member a request is for: the caller's own, a named one, or all of them.

use claudemesh_protocol::call::Sessions;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::presence::WriteTarget;

use super::context::MeshContext;
use super::outcome::Outcome;
use super::peers::PeerHandle;
use crate::refusal::Refusal;

/// The sessions a write is for: the caller's own, a named one of the same member, or all of the member.
///
/// # Errors
/// `not_found` when the member has no such session.
pub fn sessions_of(cx: &MeshContext<'_>, target: &WriteTarget) -> Result<Vec<PeerHandle>, Refusal> {
    let Some(wanted) = target.target_session.as_deref() else {
        let own = cx.peer()?;
        return Ok(vec![own.acts_for.filter(|at| cx.roster().get(*at).is_some()).unwrap_or(own.handle)]);
    };
    let of_member = cx.roster().of_member(&cx.asker()?.member);
    let found: Vec<PeerHandle> = of_member
        .iter()
        .copied()
        .filter(|at| {
            // A shell that reads is no session, so nothing is written to it because it happens to read.
            let peer = cx.roster().get(*at);
            peer.is_some_and(|peer| !peer.shell && (wanted == "*" || peer.session_id == wanted))
        })
        .collect();
    if found.is_empty() {
        return Err(Refusal::new(ErrorCode::NotFound, "none of your sessions is connected to this mesh"));
    }
    Ok(found)
}

/// Confirms a write: how many sessions it changed.
pub fn confirm(peers: &[PeerHandle]) -> Outcome<Sessions> {
    Outcome::Answer(Sessions { sessions: u32::try_from(peers.len()).unwrap_or(u32::MAX) })
}
