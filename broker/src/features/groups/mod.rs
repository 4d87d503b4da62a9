//! Groups: labels on sessions; routing uses them through the roster.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::{Group, JoinGroup, LeaveGroup, Request};
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::target::group_name;

use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::mesh::own_sessions::{confirm, sessions_of};
use crate::refusal::Refusal;

/// The feature.
pub struct Groups;

impl Feature for Groups {
    const NAME: &'static str = "groups";
    type Request = Request;
    type Response = ServerMessage;
    type Memory = ();

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::JoinGroup(join) => Self::answer(join_group(cx, &join)),
            Request::LeaveGroup(leave) => Self::answer(leave_group(cx, &leave)),
        }
    }
}

fn join_group(cx: &mut MeshContext<'_>, join: &JoinGroup) -> Result<Outcome<ServerMessage>, Refusal> {
    let confirmed = cx.wants_confirmation();
    let name = checked(&join.name)?;
    if join.role.as_ref().is_some_and(|role| role.chars().count() > limits::MAX_NAME_CHARS) {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "`role`: expected at most 64 characters"));
    }
    let role = join.role.clone().filter(|role| !confirmed || !role.trim().is_empty());
    let peers = sessions_of(cx, &join.target)?;
    for at in &peers {
        let full = cx.roster().get(*at).is_some_and(|peer| {
            peer.groups.len() >= limits::MAX_GROUPS && !peer.groups.iter().any(|group| group.name == name)
        });
        if full {
            let message = format!("a session can be in {} groups at most", limits::MAX_GROUPS);
            return Err(Refusal::new(ErrorCode::Limit, message));
        }
        cx.change_peer(*at, |peer| match peer.groups.iter_mut().find(|group| group.name == name) {
            // A client that asks for a confirmation leaves the role as it is by naming none, and clears it by an empty one.
            Some(_) if join.role.is_none() && confirmed => {}
            Some(group) => group.role.clone_from(&role),
            None => peer.groups.push(Group { name: name.clone(), role: role.clone() }),
        });
    }
    Ok(confirm(cx, &peers))
}

fn leave_group(cx: &mut MeshContext<'_>, leave: &LeaveGroup) -> Result<Outcome<ServerMessage>, Refusal> {
    let name = checked(&leave.name)?;
    let mut peers = sessions_of(cx, &leave.target)?;
    // Those that are in it: the confirmation counts what has changed.
    peers.retain(|at| {
        let peer = cx.roster().get(*at);
        peer.is_some_and(|peer| peer.groups.iter().any(|group| group.name == name))
    });
    for at in &peers {
        cx.change_peer(*at, |peer| peer.groups.retain(|group| group.name != name));
    }
    Ok(confirm(cx, &peers))
}

fn checked(name: &str) -> Result<String, Refusal> {
    group_name(name).map_err(|error| Refusal::new(ErrorCode::InvalidName, error.to_string()))
}
