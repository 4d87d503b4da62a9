//! Groups: labels on sessions; routing uses them through the roster.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::{Group, Request};
use claudemesh_protocol::limits;
use claudemesh_protocol::target::group_name;

use super::presence::{change, confirm, sessions_of};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::{Feature, Features};
use crate::mesh::outcome::{Outcome, Reject};

/// The feature.
pub struct Groups;

impl Feature for Groups {
    const NAME: &'static str = "groups";
    type Request = Request;
    type Memory = ();

    fn memory(features: &mut Features) -> &mut () {
        &mut features.groups
    }

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Reject> {
        match request {
            Request::JoinGroup(join) => {
                let confirmed = cx.wants_confirmation();
                let name = checked(&join.name)?;
                if join.role.as_ref().is_some_and(|role| role.chars().count() > limits::MAX_NAME_CHARS) {
                    return Err(Reject::new(ErrorCode::InvalidArgs, "`role`: expected at most 64 characters"));
                }
                let role = join.role.clone().filter(|role| !confirmed || !role.trim().is_empty());
                let peers = sessions_of(cx, &join.target)?;
                for at in &peers {
                    let full = cx.core.roster.get(*at).is_some_and(|peer| {
                        peer.groups.len() >= limits::MAX_GROUPS && !peer.groups.iter().any(|group| group.name == name)
                    });
                    if full {
                        let message = format!("a session can be in {} groups at most", limits::MAX_GROUPS);
                        return Err(Reject::new(ErrorCode::Limit, message));
                    }
                    change(cx, *at, |peer| match peer.groups.iter_mut().find(|group| group.name == name) {
                        // A client that asks for a confirmation knows that an absent role keeps the earlier one.
                        Some(_) if join.role.is_none() && confirmed => {}
                        Some(group) => group.role.clone_from(&role),
                        None => peer.groups.push(Group { name: name.clone(), role: role.clone() }),
                    });
                }
                Ok(confirm(cx, &peers))
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
                Ok(confirm(cx, &peers))
            }
        }
    }
}

fn checked(name: &str) -> Result<String, Reject> {
    group_name(name).map_err(|error| Reject::new(ErrorCode::InvalidName, error.to_string()))
}
