//! What the others hear of servers: that one came, changed, left, or was removed.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::mcp_servers::event;
use serde_json::{Value, json};

use super::Server;
use crate::mesh::context::MeshContext;
use crate::mesh::peers::{Peer, PeerHandle};

/// What tells of changes that did not fit into the second.
const CHANGED: &str = "mcp_servers_changed";

/// A server was registered, or has other tools now.
pub(super) fn registered(cx: &mut MeshContext<'_>, name: &str, server: &Server, by: PeerHandle) {
    let tools: Vec<&str> = server.tools.iter().map(|tool| tool.name.as_str()).collect();
    let data = json!({
        "serverName": name,
        "description": server.description,
        "tools": tools,
        "hostedBy": server.hosted_by,
    });
    tell(cx, event::REGISTERED, data, |peer| peer.handle != by);
}

/// A server that was offline is back.
pub(super) fn restored(cx: &mut MeshContext<'_>, name: &str, server: &Server) {
    tell(cx, event::RESTORED, named(name, server), |_| true);
}

/// A server was removed by someone.
pub(super) fn unregistered(cx: &mut MeshContext<'_>, name: &str, server: &Server, by: PeerHandle) {
    tell(cx, event::UNREGISTERED, named(name, server), |peer| peer.handle != by);
}

/// A server ended with its session. Older clients hear of the session only.
pub(super) fn ended(cx: &mut MeshContext<'_>, name: &str, server: &Server) {
    tell(cx, event::UNREGISTERED, named(name, server), |peer| !peer.older);
}

/// The session of a server that is kept has left.
pub(super) fn offline(cx: &mut MeshContext<'_>, name: &str, server: &Server) {
    tell(cx, event::OFFLINE, named(name, server), |peer| !peer.older);
}

fn named(name: &str, server: &Server) -> Value {
    json!({"serverName": name, "hostedBy": server.hosted_by})
}

/// Commands of the shell listen to nothing, unless they run a server themselves.
fn tell(cx: &mut MeshContext<'_>, name: &'static str, data: Value, audience: impl Fn(&Peer) -> bool) {
    let event = cx.system_event(name, data);
    if cx.tell(&event, Capability::CanUseTools, |peer| !peer.ephemeral && audience(peer)).is_none() {
        cx.leave_out(CHANGED);
    }
}
