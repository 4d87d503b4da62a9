//! A session that arrives is told which tasks wait for it: it was not here when they were assigned.

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::tasks::limits::MAX_WAITING;
use claudemesh_protocol::features::tasks::{TaskEntry, TasksWaiting};
use claudemesh_protocol::message::ServerMessage;

use super::parties::{entry, names_of};
use super::{Tasks, store};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::peers::{KnownSession, PeerHandle};
use crate::refusal::Refusal;

/// Looks for the tasks of a session that said hello. `known`: what was remembered of it, or of another session of its member.
pub(super) fn tell(cx: &mut MeshContext<'_>, at: PeerHandle, known: Option<&KnownSession>) {
    let Some(peer) = cx.roster().get(at).filter(|peer| !peer.older && !peer.ephemeral && !peer.shell) else { return };
    let Some(member) = cx.roster().member(&peer.member) else { return };
    if !cx.rights().allows(&member.id, member.role, Capability::CanReadShared) {
        return;
    }
    // What another session of its member was told, this one does not know.
    let since = known.filter(|known| known.session_id == peer.session_id).map(|known| known.last_seen_ms);
    let (names, storage, socket_no) = (names_of(cx.roster(), peer, member), cx.storage(), peer.socket_no);
    let slow = async move { store::waiting(&storage, &names, since, MAX_WAITING).await };
    let lane = Lane::of::<Tasks>(format_args!("waiting for {}", at.0));
    let work = Tasks::work_or_failure(lane, slow, move |_, cx, found: Result<_, Refusal>| {
        let (tasks, count) = match found {
            Ok(found) => found,
            Err(refusal) => {
                tracing::warn!(mesh.id = %cx.mesh_id(), refusal = ?refusal, "tasks that wait could not be read");
                return Ok(Outcome::<Nothing>::Silent);
            }
        };
        if count > 0 && cx.roster().get(at).is_some_and(|peer| peer.online() && peer.socket_no == socket_no) {
            let shown = |task| Ok(TaskEntry { description: None, ..entry(cx, task)? });
            let tasks = tasks.iter().map(shown).collect::<Result<_, Refusal>>()?;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            // Who does not read misses it: what is in the list can be read there.
            let _ = cx.push(at, &ServerMessage::from(TasksWaiting { tasks, count }));
        }
        Ok(Outcome::Silent)
    });
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}
