//! Presence: status, summary, profile, visibility, counters, the peer list.

pub mod schema;
pub mod store;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Ack, Response as Messaging};
use claudemesh_protocol::features::presence::{
    Peer as PeerView, PeerEvent, PeersList, PresenceAck, Request, Response, WriteTarget, event_data,
};
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::time::iso;

use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::{Feature, Features};
use crate::mesh::outcome::{Outcome, Reject};
use crate::mesh::peers::{Peer, PeerRef, Roster, StatusSource};

/// Peers in one list; a larger mesh shows its oldest connections.
const MAX_LISTED: usize = 2_000;

/// The feature.
pub struct Presence;

impl Feature for Presence {
    const NAME: &'static str = "presence";
    type Request = Request;
    type Memory = ();

    fn memory(features: &mut Features) -> &mut () {
        &mut features.presence
    }

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Reject> {
        match request {
            Request::SetStatus(set) => {
                let peers = sessions_of(cx, &set.target)?;
                for peer in &peers {
                    cx.set_status(*peer, set.status, StatusSource::Manual);
                }
                Ok(confirm(&set.target, &peers))
            }
            Request::SetSummary(set) => {
                if set.summary.chars().count() > limits::MAX_SUMMARY_CHARS {
                    return Err(too_long("summary", limits::MAX_SUMMARY_CHARS));
                }
                let summary = Some(set.summary).filter(|text| !text.trim().is_empty());
                let peers = sessions_of(cx, &set.target)?;
                for at in &peers {
                    change(cx, *at, |peer| peer.summary.clone_from(&summary));
                }
                Ok(confirm(&set.target, &peers))
            }
            Request::SetStats(set) => {
                let at = cx.peer()?.at;
                if let (Some(peer), Some(stats)) = (cx.core.roster.get_mut(at), set.stats) {
                    peer.stats = stats;
                }
                Ok(Outcome::Silent)
            }
            Request::SetVisible(set) => {
                let peers = sessions_of(cx, &set.target)?;
                for at in &peers {
                    set_visible(cx, *at, set.visible);
                }
                Ok(acknowledge(cx, &set.target, &peers))
            }
            Request::SetProfile(set) => {
                let peers = sessions_of(cx, &set.target)?;
                if serde_json::to_vec(&set.profile).map_or(0, |text| text.len()) > limits::MAX_PROFILE_BYTES {
                    return Err(too_long("profile", limits::MAX_PROFILE_BYTES));
                }
                for at in &peers {
                    change(cx, *at, |peer| peer.profile.merge(set.profile.clone()));
                }
                Ok(acknowledge(cx, &set.target, &peers))
            }
            Request::ListPeers(_) => {
                let own = cx.peer()?;
                let peers = cx
                    .core
                    .roster
                    .iter()
                    .filter(|peer| !peer.ephemeral && (peer.visible || peer.member == own.member))
                    .take(MAX_LISTED)
                    .map(|peer| view(&cx.core.roster, peer, own.at))
                    .collect();
                Ok(Outcome::answer(ServerMessage::from(Response::from(PeersList { peers }))))
            }
        }
    }
}

/// The sessions a write is for: the caller's own, a named one of the same member, or all of the member.
///
/// # Errors
/// `not_found` when the member has no such session.
pub fn sessions_of(cx: &MeshContext<'_>, target: &WriteTarget) -> Result<Vec<PeerRef>, Reject> {
    let own = cx.peer()?;
    let Some(wanted) = target.target_session.as_deref() else {
        return Ok(vec![own.at]);
    };
    let of_member = cx.core.roster.of_member(&own.member);
    let found: Vec<PeerRef> = of_member
        .iter()
        .copied()
        .filter(|at| wanted == "*" || cx.core.roster.get(*at).is_some_and(|peer| peer.session_id == wanted))
        .collect();
    if found.is_empty() {
        return Err(Reject::new(ErrorCode::NotFound, "you have no such session in this mesh at the moment"));
    }
    Ok(found)
}

/// Answers a write that asked for it.
pub fn confirm(target: &WriteTarget, peers: &[PeerRef]) -> Outcome {
    if !target.confirm {
        return Outcome::Silent;
    }
    let sessions = u32::try_from(peers.len()).unwrap_or(u32::MAX);
    Outcome::answer(ServerMessage::from(Response::from(PresenceAck { sessions })))
}

/// `set_visible` and `set_profile` have always had an answer: an `ack` whose id is the request id.
fn acknowledge(cx: &MeshContext<'_>, target: &WriteTarget, peers: &[PeerRef]) -> Outcome {
    if target.confirm {
        return confirm(target, peers);
    }
    let id = cx.caller.as_ref().and_then(|caller| caller.req_id.as_deref().or(caller.id.as_deref()));
    let ack = Ack { id: id.unwrap_or_default().to_owned(), ..Ack::default() };
    Outcome::answer(ServerMessage::from(Messaging::from(ack)))
}

/// Changes a peer and notes it for storage.
pub fn change(cx: &mut MeshContext<'_>, at: PeerRef, change: impl FnOnce(&mut Peer)) {
    if let Some(peer) = cx.core.roster.get_mut(at) {
        change(peer);
        cx.touch(at);
    }
}

fn set_visible(cx: &mut MeshContext<'_>, at: PeerRef, visible: bool) {
    let Some(peer) = cx.core.roster.get(at) else { return };
    let changed = peer.visible != visible;
    let (name, pubkey) = (peer.name.clone(), peer.key());
    change(cx, at, |peer| peer.visible = visible);
    if changed {
        let event = PeerEvent { name, pubkey, groups: None, last_seen_at: None, summary: None };
        let kind = if visible { "peer_visible" } else { "peer_hidden" };
        cx.push_event(kind, event_data(&event), |other| other.at == at);
    }
}

fn too_long(field: &str, limit: usize) -> Reject {
    Reject::new(ErrorCode::InvalidArgs, format!("`{field}`: expected at most {limit} characters"))
}

fn view(roster: &Roster, peer: &Peer, own: PeerRef) -> PeerView {
    PeerView {
        pubkey: peer.key(),
        member_pubkey: peer.member_key,
        member_id: Some(peer.member.clone()),
        display_name: peer.name.clone(),
        status: peer.status,
        summary: peer.summary.clone(),
        groups: peer.groups.clone(),
        session_id: peer.session_id.clone(),
        connected_at: iso(peer.connected_at_ms),
        cwd: peer.cwd.clone(),
        peer_role: if peer.control_plane { "control-plane" } else { "session" }.into(),
        role: roster.member(&peer.member).map(|member| member.role.as_str().into()),
        online: peer.online(),
        last_seen_at: Some(iso(peer.last_seen_ms)),
        is_self: (peer.at == own).then_some(true),
        waiting: None,
        hostname: peer.hostname.clone(),
        peer_type: peer.peer_type.clone(),
        channel: peer.channel.clone(),
        model: peer.model.clone(),
        stats: Some(peer.stats).filter(|stats| *stats != Default::default()),
        visible: Some(peer.visible),
        profile: Some(peer.profile.clone()).filter(|profile| !profile.is_empty()),
    }
}
