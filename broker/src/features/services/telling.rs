//! What those hear of a service who may use it.

use std::collections::HashSet;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::services::{Status, event};
use serde_json::{Value, json};

use super::{Memory, Service};
use crate::mesh::context::MeshContext;
use crate::mesh::peers::{Peer, PeerHandle};

/// What tells of changes that did not fit into the second.
const CHANGED: &str = "mcp_services_changed";

/// Those who listen and may use a service.
pub(super) type Seers = HashSet<PeerHandle>;

/// Who may use a service now. Commands of the shell listen to nothing.
pub(super) fn seers(cx: &MeshContext<'_>, name: &str) -> Seers {
    let sees = |peer: &&Peer| {
        !peer.ephemeral && cx.hosted(name, &cx.viewer(peer)).is_some() && cx.allows_peer(peer, Capability::CanUseTools)
    };
    cx.roster().iter().filter(sees).map(|peer| peer.handle).collect()
}

fn deployed_data(name: &str, service: &Service) -> Value {
    json!({
        "name": name,
        "description": service.version.description,
        "tool_count": service.tools.len(),
        "deployed_by": service.version.deployed_by,
        "scope": service.scope,
        "tools": &*service.tools,
    })
}

/// A service answers.
pub(super) fn deployed(memory: &Memory, cx: &mut MeshContext<'_>, name: &str) {
    let Some(service) = memory.services.get(name) else { return };
    let (data, seers) = (deployed_data(name, service), seers(cx, name));
    tell(cx, event::DEPLOYED, data, |peer| seers.contains(&peer.handle));
}

/// It runs in another version, or with other tools.
pub(super) fn updated(memory: &Memory, cx: &mut MeshContext<'_>, name: &str) {
    let Some(service) = memory.services.get(name) else { return };
    let data = json!({"name": name, "tool_count": service.tools.len(), "tools": &*service.tools});
    let seers = seers(cx, name);
    tell(cx, event::UPDATED, data, |peer| seers.contains(&peer.handle));
}

/// It is no more.
pub(super) fn undeployed(cx: &mut MeshContext<'_>, name: &str, by: &str, seers: &Seers) {
    tell(cx, event::UNDEPLOYED, json!({"name": name, "by": by}), |peer| seers.contains(&peer.handle));
}

/// It is for others now: those who lose it hear that it is gone, those who gain it get its tools.
pub(super) fn rescoped(memory: &Memory, cx: &mut MeshContext<'_>, name: &str, by: &str, before: &Seers) {
    let Some(service) = memory.services.get(name) else { return };
    let now = seers(cx, name);
    let data = json!({"name": name, "scope": service.scope, "by": by});
    tell(cx, event::SCOPE_CHANGED, data, |peer| now.contains(&peer.handle));
    let lost: Seers = before.difference(&now).copied().collect();
    undeployed(cx, name, by, &lost);
    if service.status == Status::Running {
        let data = deployed_data(name, service);
        tell(cx, event::DEPLOYED, data, |peer| now.contains(&peer.handle) && !before.contains(&peer.handle));
    }
}

/// How far a deploy is, or what became of a service. Not for clients of before.
pub(super) fn status(memory: &Memory, cx: &mut MeshContext<'_>, name: &str, status: Status, error: Option<&str>) {
    if !memory.services.contains_key(name) {
        return;
    }
    let seers = seers(cx, name);
    let mut data = json!({"name": name, "status": status});
    if let Some(error) = error {
        data["error"] = error.into();
    }
    tell(cx, event::STATUS, data, |peer| seers.contains(&peer.handle) && !peer.older);
}

/// It ended by itself.
pub(super) fn crashed(cx: &mut MeshContext<'_>, name: &str, error: &str, restarts: u32, again: bool) {
    let data = json!({"name": name, "error": error, "restarts": restarts, "again": again});
    let seers = seers(cx, name);
    tell(cx, event::CRASHED, data, |peer| seers.contains(&peer.handle) && !peer.older);
}

fn tell(cx: &mut MeshContext<'_>, name: &'static str, data: Value, audience: impl Fn(&Peer) -> bool) {
    let event = cx.system_event(name, data);
    if cx.tell(&event, Capability::CanUseTools, audience).is_none() {
        cx.leave_out(CHANGED);
    }
}
