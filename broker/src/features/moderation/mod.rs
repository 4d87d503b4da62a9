//! Moderation: owners and admins close connections and ban members.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::moderation::{
    BanAck, BanEntry, DisconnectAck, KickAck, ListBansResult, Request, Response, Selection, UnbanAck,
};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::time::iso;

use super::members::store;
use super::messaging::{Resolved, resolve_name};
use crate::audit::By;
use crate::mesh::attach::evict;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::{Feature, Features};
use crate::mesh::events::MeshEvent;
use crate::mesh::load::members_lane;
use crate::mesh::outcome::{Outcome, Reject};
use crate::mesh::peers::{PeerRef, Role};
use crate::session::CloseReason;

/// Shortest key prefix that names a banned member.
const MIN_PREFIX: usize = 8;

/// The feature.
pub struct Moderation;

impl Feature for Moderation {
    const NAME: &'static str = "moderation";
    type Request = Request;
    type Memory = ();

    fn memory(features: &mut Features) -> &mut () {
        &mut features.moderation
    }

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Reject> {
        match request {
            Request::Disconnect(disconnect) => {
                cx.require(Role::Admin)?;
                let (peers, stale) = select(cx, &disconnect.selection)?;
                let reason = if stale { CloseReason::DisconnectedStale } else { CloseReason::Disconnected };
                let kicked = close(cx, &peers, reason);
                Ok(answer(DisconnectAck { affected: kicked.clone(), kicked }))
            }
            Request::Kick(kick) => {
                cx.require(Role::Admin)?;
                let (peers, stale) = select(cx, &kick.selection)?;
                let (skipped, peers): (Vec<PeerRef>, Vec<PeerRef>) = peers.into_iter().partition(|at| {
                    cx.core.roster.get(*at).is_some_and(|peer| peer.control_plane && !is_session(peer))
                });
                let skipped: Vec<String> =
                    skipped.iter().filter_map(|at| cx.core.roster.get(*at)).map(|peer| peer.name.clone()).collect();
                let reason = if stale { CloseReason::KickedStale } else { CloseReason::Kicked };
                let kicked = close(cx, &peers, reason);
                let skipped_control_plane = (!skipped.is_empty()).then_some(skipped);
                Ok(answer(KickAck { affected: kicked.clone(), kicked, skipped_control_plane }))
            }
            Request::Ban(ban) => {
                cx.require(Role::Admin)?;
                // The one place where it is kept: the roster has no column for it.
                tracing::info!(mesh.id = %cx.core.id, target = ?ban.target, reason = ?ban.reason, "a member is to be banned");
                ban_member(cx, &ban.target)
            }
            Request::Unban(unban) => {
                cx.require(Role::Admin)?;
                unban_member(cx, &unban.target)
            }
            Request::ListBans(_) => {
                let mut banned: Vec<_> =
                    cx.core.roster.members().filter_map(|member| member.revoked_at_ms.map(|at| (at, member))).collect();
                banned.sort_by_key(|(at, member)| (*at, member.pubkey));
                let bans = banned
                    .into_iter()
                    .map(|(at, member)| BanEntry {
                        name: member.display_name.clone(),
                        pubkey: member.pubkey,
                        revoked_at: iso(at),
                    })
                    .collect();
                Ok(answer(ListBansResult { bans }))
            }
        }
    }
}

fn answer(response: impl Into<Response>) -> Outcome {
    Outcome::answer(ServerMessage::from(response.into()))
}

/// A plain hello that describes itself as a session of some program is one; older clients have no other hello.
fn is_session(peer: &crate::mesh::peers::Peer) -> bool {
    peer.session_key.is_some() || peer.channel.is_some()
}

/// The connections that are meant, never the caller's own with `all` and `stale`; and whether `stale` chose them.
fn select(cx: &MeshContext<'_>, selection: &Selection) -> Result<(Vec<PeerRef>, bool), Reject> {
    let own = cx.peer()?.at;
    let others = cx.core.roster.iter().filter(|peer| peer.at != own && !peer.ephemeral);
    if selection.all == Some(true) {
        return Ok((others.map(|peer| peer.at).collect(), false));
    }
    if let Some(stale) = selection.stale {
        let limit = i64::try_from(stale).unwrap_or(i64::MAX);
        let now = cx.mono_ms();
        return Ok((others.filter(|peer| now - peer.heard_mono_ms >= limit).map(|peer| peer.at).collect(), true));
    }
    let Some(target) = selection.target.as_deref().filter(|target| !target.trim().is_empty()) else {
        return Err(Reject::new(ErrorCode::Invalid, "expected `target`, `stale` or `all`"));
    };
    let resolved = resolve_name(&cx.core.roster, target, None).map_err(not_found)?;
    let peers = match resolved {
        Resolved::Session(key) => cx.core.roster.with_key(&key).to_vec(),
        Resolved::Member(member, _) => cx.core.roster.of_member(&member).to_vec(),
    };
    Ok((peers, false))
}

/// Moderation answers `not_found` where messaging says `unknown_target`.
fn not_found(reject: Reject) -> Reject {
    if reject.code == ErrorCode::UnknownTarget { Reject { code: ErrorCode::NotFound, ..reject } } else { reject }
}

/// Closes and removes connections; the others learn that they left.
fn close(cx: &mut MeshContext<'_>, peers: &[PeerRef], reason: CloseReason) -> Vec<String> {
    let mut names = Vec::new();
    for at in peers {
        let Some(peer) = cx.core.roster.get(*at) else { continue };
        names.push(peer.name.clone());
        tracing::info!(mesh.id = %cx.core.id, peer.id = %peer.presence, reason = reason.parts().1, "connection closed by a moderator");
        cx.close(*at, reason);
        evict(cx, *at, true);
    }
    names
}

fn ban_member(cx: &mut MeshContext<'_>, target: &str) -> Result<Outcome, Reject> {
    if target.trim().is_empty() {
        return Err(Reject::new(ErrorCode::Invalid, "expected a `target`"));
    }
    let own = cx.member()?.clone();
    let id = match resolve_name(&cx.core.roster, target, None).map_err(not_found) {
        Ok(Resolved::Member(id, _)) => id,
        Ok(Resolved::Session(key)) => session_member(cx, &key)?,
        Err(reject) => {
            // Names and keys of the banned mean nobody any more, which would be news to an admin.
            return Err(match banned_like(cx, target).as_slice() {
                [(_, name, _)] if reject.code == ErrorCode::NotFound => {
                    Reject::new(ErrorCode::AlreadyExists, format!("`{name}` is banned already"))
                }
                _ => reject,
            });
        }
    };
    let member =
        cx.core.roster.member(&id).cloned().ok_or_else(|| Reject::new(ErrorCode::NotFound, "no such member"))?;
    if member.id == own.id {
        return Err(Reject::new(ErrorCode::Invalid, "you cannot ban yourself"));
    }
    // Nobody bans the owner, and admins do not ban each other: that is the owner's to decide.
    if member.role == Role::Owner || (member.role == Role::Admin && own.role != Role::Owner) {
        return Err(Reject::new(
            ErrorCode::Forbidden,
            format!("your role does not allow to ban an {}", member.role.as_str()),
        ));
    }
    let (storage, now, by) = (cx.core.storage(), cx.now_ms(), own.id.clone());
    Ok(Outcome::work::<Moderation, _, _>(members_lane(), async move {
        store::revoke(&storage, &id, &By::member(&by, now)).await?;
        Ok(move |(): &mut (), cx: &mut MeshContext<'_>| {
            if let Some(member) = cx.core.roster.member_mut(&id) {
                member.revoked_at_ms = Some(now);
            }
            // One-shot verbs of the member are not indexed by member: walk all.
            let peers: Vec<PeerRef> =
                cx.core.roster.iter().filter(|peer| peer.member == id).map(|peer| peer.at).collect();
            close(cx, &peers, CloseReason::Banned);
            tracing::info!(mesh.id = %cx.core.id, member.id = %id, "member banned");
            cx.emit(MeshEvent::MemberGone { member: id });
            Ok(answer(BanAck { banned: member.display_name }))
        })
    }))
}

fn session_member(cx: &MeshContext<'_>, key: &PublicKey) -> Result<MemberId, Reject> {
    let live =
        cx.core.roster.with_key(key).first().and_then(|at| cx.core.roster.get(*at)).map(|peer| peer.member.clone());
    live.or_else(|| cx.core.roster.known.get(key).map(|known| known.member.clone()))
        .ok_or_else(|| Reject::new(ErrorCode::NotFound, "no such member"))
}

/// Banned members of this name, key or beginning of a key.
fn banned_like(cx: &MeshContext<'_>, target: &str) -> Vec<(MemberId, String, Role)> {
    let target = target.trim().to_lowercase();
    cx.core
        .roster
        .members()
        .filter(|member| member.revoked_at_ms.is_some())
        .filter(|member| {
            let key = member.pubkey.to_hex();
            member.display_name.to_lowercase() == target
                || key == target
                || (target.len() >= MIN_PREFIX && key.starts_with(&target))
        })
        .map(|member| (member.id.clone(), member.display_name.clone(), member.role))
        .collect()
}

fn unban_member(cx: &mut MeshContext<'_>, target: &str) -> Result<Outcome, Reject> {
    let target = target.trim().to_lowercase();
    if target.is_empty() {
        return Err(Reject::new(ErrorCode::Invalid, "expected a `target`"));
    }
    let (id, name, role) = match banned_like(cx, &target).as_slice() {
        [one] => one.clone(),
        [] => return Err(Reject::new(ErrorCode::NotFound, "no banned member matches")),
        _ => return Err(Reject::new(ErrorCode::AmbiguousTarget, "several banned members match; use a key")),
    };
    // Only the owner bans an admin, and only the owner takes that back.
    if role == Role::Admin && cx.member()?.role != Role::Owner {
        return Err(Reject::new(ErrorCode::Forbidden, "your role does not allow to lift the ban of an admin"));
    }
    let (storage, by) = (cx.core.storage(), By::member(&cx.member()?.id, cx.now_ms()));
    Ok(Outcome::work::<Moderation, _, _>(members_lane(), async move {
        store::unrevoke(&storage, &id, &by).await?;
        Ok(move |(): &mut (), cx: &mut MeshContext<'_>| {
            if let Some(member) = cx.core.roster.member_mut(&id) {
                member.revoked_at_ms = None;
            }
            tracing::info!(mesh.id = %cx.core.id, member.id = %id, "ban lifted");
            Ok(answer(UnbanAck { unbanned: name }))
        })
    }))
}
