//! What the others are told of a peer: that it came, went, hid or showed itself.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::presence::{PeerEvent, event_data};
use claudemesh_protocol::time::iso;

use crate::mesh::context::MeshContext;
use crate::mesh::peers::{KnownSession, Peer, PeerHandle};

/// What tells of changes that did not fit into the second.
const ROSTER_CHANGED: &str = "roster_changed";
const ANYONE: Option<Capability> = None;

/// A session came; `known` when it was here before.
pub(super) fn arrival(cx: &mut MeshContext<'_>, at: PeerHandle, known: Option<&KnownSession>) {
    // Hidden peers cause no join event: it would give them away.
    let Some(peer) = cx.roster().get(at).filter(|peer| peer.visible && !peer.ephemeral && !peer.shell) else { return };
    let event = PeerEvent {
        groups: Some(cx.roster().all_groups(peer)),
        last_seen_at: known.map(|known| iso(known.last_seen_ms)),
        summary: known.and_then(|known| known.summary.clone()),
        ..named(cx, peer)
    };
    let name = if known.is_some() { "peer_returned" } else { "peer_joined" };
    let member = peer.member.clone();
    tell(cx, name, &event, |other| other.member != member);
}

/// A session is gone.
pub(super) fn departure(cx: &mut MeshContext<'_>, record: &Peer) {
    let event = named(cx, record);
    tell(cx, "peer_left", &event, |other| other.member != record.member);
}

/// A session hid or showed itself.
pub(super) fn visibility(cx: &mut MeshContext<'_>, at: PeerHandle) {
    let Some(peer) = cx.roster().get(at) else { return };
    let kind = if peer.visible { "peer_visible" } else { "peer_hidden" };
    let event = named(cx, peer);
    tell(cx, kind, &event, |other| other.handle != at);
}

fn named(cx: &MeshContext<'_>, peer: &Peer) -> PeerEvent {
    PeerEvent {
        name: peer.name.clone(),
        member_name: cx.roster().member(&peer.member).map(|member| member.display_name.clone()),
        pubkey: peer.key(),
        groups: None,
        last_seen_at: None,
        summary: None,
    }
}

fn tell(cx: &mut MeshContext<'_>, name: &str, event: &PeerEvent, audience: impl Fn(&Peer) -> bool) {
    let event = cx.system_event(name, event_data(event));
    if cx.tell(&event, ANYONE, |peer| !peer.ephemeral && audience(peer)).is_none() {
        cx.leave_out(ROSTER_CHANGED);
    }
}
