//! Moderation: owners and admins close connections and ban members.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::moderation::{
    Ban, BanAck, BanEntry, Disconnect, DisconnectAck, Kick, KickAck, ListBans, ListBansResult, Request, Selection,
    Unban, UnbanAck,
};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::time::iso;

use crate::audit::By;
use crate::db::members as store;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::load::members_lane;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::{Member, PeerHandle, Role};
use crate::mesh::resolve::{Resolved, resolve_name};
use crate::refusal::Refusal;
use crate::session::CloseReason;

/// Shortest key prefix that names a banned member.
const MIN_PREFIX: usize = 8;
/// A reason is a sentence or two, and stays in the audit log for ever.
const MAX_BAN_REASON_CHARS: usize = 500;

/// The feature.
pub struct Moderation;

impl Feature for Moderation {
    const NAME: &'static str = "moderation";
    type Request = Request;
    type Memory = ();

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::Disconnect(request) => Self::answer::<Disconnect>(disconnect(cx, &request)),
            Request::Kick(request) => Self::answer::<Kick>(kick(cx, &request)),
            Request::Ban(request) => Self::answer::<Ban>(ban(cx, &request)),
            Request::Unban(request) => Self::answer::<Unban>(unban(cx, &request)),
            Request::ListBans(_) => Self::answer::<ListBans>(Ok(list_bans(cx))),
        }
    }
}

fn disconnect(cx: &mut MeshContext<'_>, request: &Disconnect) -> Result<Outcome<DisconnectAck>, Refusal> {
    let (peers, stale) = select(cx, &request.selection)?;
    let reason = if stale { CloseReason::DisconnectedStale } else { CloseReason::Disconnected };
    let kicked = close(cx, &peers, reason);
    Ok(Outcome::Answer(DisconnectAck { affected: kicked.clone(), kicked }))
}

fn kick(cx: &mut MeshContext<'_>, request: &Kick) -> Result<Outcome<KickAck>, Refusal> {
    let (peers, stale) = select(cx, &request.selection)?;
    let (skipped, peers): (Vec<PeerHandle>, Vec<PeerHandle>) = peers
        .into_iter()
        .partition(|at| cx.roster().get(*at).is_some_and(|peer| peer.control_plane && !is_session(peer)));
    let skipped: Vec<String> =
        skipped.iter().filter_map(|at| cx.roster().get(*at)).map(|peer| peer.name.clone()).collect();
    let reason = if stale { CloseReason::KickedStale } else { CloseReason::Kicked };
    let kicked = close(cx, &peers, reason);
    let skipped_control_plane = (!skipped.is_empty()).then_some(skipped);
    Ok(Outcome::Answer(KickAck { affected: kicked.clone(), kicked, skipped_control_plane }))
}

fn list_bans(cx: &MeshContext<'_>) -> Outcome<ListBansResult> {
    let mut banned: Vec<_> =
        cx.roster().members().filter_map(|member| member.banned_at_ms().map(|at| (at, member))).collect();
    banned.sort_by_key(|(at, member)| (*at, member.pubkey));
    let entry = |(at, member): (i64, &Member)| BanEntry {
        name: member.display_name.clone(),
        pubkey: member.pubkey,
        revoked_at: iso(at),
    };
    Outcome::Answer(ListBansResult { bans: banned.into_iter().map(entry).collect() })
}

/// A plain hello that describes itself as a session of some program is one; older clients have no other hello.
fn is_session(peer: &crate::mesh::peers::Peer) -> bool {
    peer.session_key.is_some() || peer.channel.is_some()
}

/// The connections that are meant, never the caller's own with `all` and `stale`; and whether `stale` chose them.
fn select(cx: &MeshContext<'_>, selection: &Selection) -> Result<(Vec<PeerHandle>, bool), Refusal> {
    let own = cx.asker()?.handle;
    let others = cx.roster().iter().filter(|peer| peer.handle != own && !peer.ephemeral);
    if selection.all == Some(true) {
        return Ok((others.map(|peer| peer.handle).collect(), false));
    }
    if let Some(stale) = selection.stale {
        let limit = i64::try_from(stale).unwrap_or(i64::MAX);
        let now = cx.mono_ms();
        return Ok((others.filter(|peer| now - peer.heard_mono_ms >= limit).map(|peer| peer.handle).collect(), true));
    }
    let older = cx.asker()?.older;
    let Some(target) = selection.target.as_deref().filter(|target| !target.trim().is_empty()) else {
        if older {
            return Ok((vec![], false));
        }
        return Err(Refusal::new(ErrorCode::Invalid, "expected `target`, `stale` or `all`"));
    };
    let resolved = match resolve_name(cx.roster(), target, None).map_err(not_found) {
        // A client of before is told that no one was closed.
        Err(refusal) if older && refusal.code == ErrorCode::NotFound => return Ok((vec![], false)),
        resolved => resolved?,
    };
    let peers = match resolved {
        Resolved::Session(key) => cx.roster().with_key(&key).to_vec(),
        Resolved::Member(member, _) => cx.roster().of_member(&member).to_vec(),
    };
    Ok((peers, false))
}

/// Moderation answers `not_found` where messaging says `unknown_target`.
fn not_found(refusal: Refusal) -> Refusal {
    if refusal.code == ErrorCode::UnknownTarget { Refusal { code: ErrorCode::NotFound, ..refusal } } else { refusal }
}

/// Closes and removes connections; the others learn that they left.
fn close(cx: &mut MeshContext<'_>, peers: &[PeerHandle], reason: CloseReason) -> Vec<String> {
    let mut names = Vec::new();
    for at in peers {
        let Some(peer) = cx.roster().get(*at) else { continue };
        names.push(peer.name.clone());
        tracing::info!(mesh.id = %cx.mesh_id(), peer.id = %peer.presence, reason = reason.parts().1, "connection closed by a moderator");
        cx.close(*at, reason);
        cx.end(*at, true);
    }
    names
}

fn ban(cx: &mut MeshContext<'_>, request: &Ban) -> Result<Outcome<BanAck>, Refusal> {
    let target = request.target.as_str();
    if target.trim().is_empty() {
        return Err(Refusal::new(ErrorCode::Invalid, "expected a `target`"));
    }
    let reason = request.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()).map(str::to_owned);
    if reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_BAN_REASON_CHARS) {
        let message = format!("expected a `reason` of at most {MAX_BAN_REASON_CHARS} characters");
        return Err(Refusal::new(ErrorCode::InvalidArgs, message));
    }
    tracing::info!(mesh.id = %cx.mesh_id(), target = ?request.target, reason = ?request.reason, "a member is to be banned");
    let own = cx.member()?.clone();
    let id = match resolve_name(cx.roster(), target, None).map_err(not_found) {
        Ok(Resolved::Member(id, _)) => id,
        Ok(Resolved::Session(key)) => session_member(cx, &key)?,
        Err(refusal) => {
            // Names and keys of the banned mean no one any more, which would be news to an admin.
            return Err(match banned_like(cx, target).as_slice() {
                [(_, name, _)] if refusal.code == ErrorCode::NotFound => {
                    Refusal::new(ErrorCode::AlreadyExists, format!("`{name}` is banned already"))
                }
                _ => refusal,
            });
        }
    };
    let member = cx.roster().member(&id).cloned().ok_or_else(|| Refusal::new(ErrorCode::NotFound, "no such member"))?;
    if member.id == own.id {
        return Err(Refusal::new(ErrorCode::Invalid, "you cannot ban yourself"));
    }
    // No one bans the owner, and admins do not ban each other: that is the owner's to decide.
    if member.role == Role::Owner || (member.role == Role::Admin && own.role != Role::Owner) {
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            format!("your role does not allow to ban an {}", member.role.as_str()),
        ));
    }
    let (storage, now) = (cx.storage(), cx.now_ms());
    let by = By::member(&own.id, now);
    let banned = id.clone();
    let slow = async move { store::revoke(&storage, &banned, reason, &by).await };
    Ok(Moderation::work_in(members_lane(), slow, move |(), cx, _| {
        cx.change_member(&id, |member| member.revoked_at_ms = Some(now));
        // One-shot verbs of the member are not indexed by member: walk all.
        let peers: Vec<PeerHandle> =
            cx.roster().iter().filter(|peer| peer.member == id).map(|peer| peer.handle).collect();
        close(cx, &peers, CloseReason::Banned);
        tracing::info!(mesh.id = %cx.mesh_id(), member.id = %id, "member banned");
        cx.emit(MeshEvent::MemberGone { member: id });
        Ok(Outcome::Answer(BanAck { banned: member.display_name }))
    }))
}

fn session_member(cx: &MeshContext<'_>, key: &PublicKey) -> Result<MemberId, Refusal> {
    let live = cx.roster().with_key(key).first().and_then(|at| cx.roster().get(*at)).map(|peer| peer.member.clone());
    live.or_else(|| cx.roster().known.get(key).map(|known| known.member.clone()))
        .ok_or_else(|| Refusal::new(ErrorCode::NotFound, "no such member"))
}

/// Banned members of this name, key or beginning of a key.
fn banned_like(cx: &MeshContext<'_>, target: &str) -> Vec<(MemberId, String, Role)> {
    let target = target.trim().to_lowercase();
    cx.roster()
        .members()
        .filter(|member| member.banned_at_ms().is_some())
        .filter(|member| {
            let key = member.pubkey.to_hex();
            member.display_name.to_lowercase() == target
                || key == target
                || (target.len() >= MIN_PREFIX && key.starts_with(&target))
        })
        .map(|member| (member.id.clone(), member.display_name.clone(), member.role))
        .collect()
}

fn unban(cx: &mut MeshContext<'_>, request: &Unban) -> Result<Outcome<UnbanAck>, Refusal> {
    let target = request.target.trim().to_lowercase();
    if target.is_empty() {
        return Err(Refusal::new(ErrorCode::Invalid, "expected a `target`"));
    }
    let (id, before, role) = match banned_like(cx, &target).as_slice() {
        [one] => one.clone(),
        [] => return Err(Refusal::new(ErrorCode::NotFound, "no banned member matches")),
        _ => return Err(Refusal::new(ErrorCode::AmbiguousTarget, "several banned members match; use a key")),
    };
    // Only the owner bans an admin, and only the owner takes that back.
    if role == Role::Admin && cx.member()?.role != Role::Owner {
        return Err(Refusal::new(ErrorCode::Forbidden, "your role does not allow to lift the ban of an admin"));
    }
    let (storage, by) = (cx.storage(), By::member(&cx.member()?.id, cx.now_ms()));
    let unbanned = id.clone();
    let slow = async move { store::unrevoke(&storage, &unbanned, &by).await };
    Ok(Moderation::work_in(members_lane(), slow, move |(), cx, name| {
        let name = name.unwrap_or(before);
        cx.change_member(&id, |member| {
            member.revoked_at_ms = None;
            member.display_name.clone_from(&name);
        });
        tracing::info!(mesh.id = %cx.mesh_id(), member.id = %id, "ban lifted");
        Ok(Outcome::Answer(UnbanAck { unbanned: name }))
    }))
}
