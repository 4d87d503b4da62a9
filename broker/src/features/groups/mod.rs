//! Groups: labels on sessions; routing uses them through the roster.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::{Group, Request};
use claudemesh_protocol::limits;
use claudemesh_protocol::target::group_name;

use super::presence::{change, confirm, sessions_of};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::{Feature, Features};
use crate::mesh::outcome::Outcome;
use crate::refusal::Refusal;

/// The feature.
pub struct Groups;

impl Feature for Groups {
    const NAME: &'static str = "groups";
    type Request = Request;
    type Memory = ();

    fn memory(features: &mut Features) -> &mut () {
        &mut features.groups
    }

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::JoinGroup(join) => {
                let name = checked(&join.name)?;
                if join.role.as_ref().is_some_and(|role| role.chars().count() > limits::MAX_NAME_CHARS) {
                    return Err(Refusal::new(ErrorCode::InvalidArgs, "`role`: expected at most 64 characters"));
                }
                let role = join.role.clone().filter(|role| !join.target.confirm || !role.trim().is_empty());
                let peers = sessions_of(cx, &join.target)?;
                for at in &peers {
                    let full = cx.core.roster.get(*at).is_some_and(|peer| {
                        peer.groups.len() >= limits::MAX_GROUPS && !peer.groups.iter().any(|group| group.name == name)
                    });
                    if full {
                        let message = format!("a session can be in {} groups at most", limits::MAX_GROUPS);
                        return Err(Refusal::new(ErrorCode::Limit, message));
                    }
                    change(cx, *at, |peer| match peer.groups.iter_mut().find(|group| group.name == name) {
                        // Who asks for a confirmation knows that no role keeps the one of before, and an empty one clears.
                        Some(_) if join.role.is_none() && join.target.confirm => {}
                        Some(group) => group.role.clone_from(&role),
                        None => peer.groups.push(Group { name: name.clone(), role: role.clone() }),
                    });
                }
                Ok(confirm(&join.target, &peers))
            }
            Request::LeaveGroup(leave) => {
                let name = checked(&leave.name)?;
                let mut peers = sessions_of(cx, &leave.target)?;
                // Those that are in it: the confirmation counts what has changed.
                peers.retain(|at| {
                    let peer = cx.core.roster.get(*at);
                    peer.is_some_and(|peer| peer.groups.iter().any(|group| group.name == name))
                });
                for at in &peers {
                    change(cx, *at, |peer| peer.groups.retain(|group| group.name != name));
                }
                Ok(confirm(&leave.target, &peers))
            }
        }
    }
}

fn checked(name: &str) -> Result<String, Refusal> {
    group_name(name).map_err(|error| Refusal::new(ErrorCode::InvalidName, error.to_string()))
}
