//! Presence: status, summary, profile, visibility, counters, the peer list.

mod announce;
pub mod http;
mod metrics;
#[cfg(test)]
mod tests;
mod totals;

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use claudemesh_protocol::call::{Nothing, Sessions};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::messaging::Ack;
use claudemesh_protocol::features::presence::{
    ListPeers, Peer as PeerView, PeerStatus, PeersList, Request, SetProfile, SetStats, SetStatus, SetSummary,
    SetVisible, event_data,
};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::limits;
use claudemesh_protocol::session::HelloAck;
use claudemesh_protocol::time::iso;

use self::totals::Counters;
use crate::db::MeshDb;
use crate::db::sessions::{self, SessionsPart, StatsDelta};
use crate::db::{Db, DbError};
use crate::hash::FastMap;
use crate::journal::Batch;
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::mesh::own_sessions::{confirm, sessions_of};
use crate::mesh::peers::{Peer, PeerHandle, Roster, StatusSource};
use crate::refusal::Refusal;

/// Peers in one list; a larger mesh shows those that are here first, and of them its oldest connections.
const MAX_LISTED: usize = 2_000;

/// What presence remembers of one mesh.
#[derive(Debug, Default)]
pub struct PresenceMemory {
    /// Counters of each connection.
    counters: FastMap<PeerHandle, Counters>,
    /// Totals per member.
    totals: HashMap<MemberId, StatsDelta>,
    /// Gains to be written.
    gains: Vec<StatsDelta>,
}

/// The feature.
pub struct Presence;

impl Feature for Presence {
    const NAME: &'static str = "presence";
    type Request = Request;
    type Memory = PresenceMemory;

    fn register_metrics() {
        LazyLock::force(&metrics::METRICS);
    }

    async fn load(storage: &MeshDb) -> Result<PresenceMemory, DbError> {
        let totals = sessions::totals(storage).await?;
        let totals = totals.into_iter().map(|total| (total.member_id.clone(), total)).collect();
        Ok(PresenceMemory { totals, ..PresenceMemory::default() })
    }

    fn handle(memory: &mut PresenceMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::SetStatus(set) => Self::answer::<SetStatus>(set_status(cx, &set)),
            Request::SetSummary(set) => Self::answer::<SetSummary>(set_summary(cx, set)),
            Request::SetStats(set) => Self::answer::<SetStats>(set_stats(memory, cx, set)),
            Request::SetVisible(set) => Self::answer::<SetVisible>(set_visible(cx, &set)),
            Request::SetProfile(set) => Self::answer::<SetProfile>(set_profile(cx, set)),
            Request::ListPeers(_) => Self::answer::<ListPeers>(list_peers(memory, cx)),
        }
    }

    fn on_event(memory: &mut PresenceMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            MeshEvent::Attached { peer, reattached: false, known } => announce::arrival(cx, *peer, known.as_deref()),
            MeshEvent::Detached { peer } => memory.count(*peer, cx.mesh_id()),
            MeshEvent::Ended { peer, record, announce } => {
                memory.count(*peer, cx.mesh_id());
                memory.counters.remove(peer);
                // A hidden peer came without a word, and its going would give it away as well.
                if *announce && record.visible && !record.ephemeral && !record.shell {
                    announce::departure(cx, record);
                }
            }
            MeshEvent::Tick => {
                if !memory.gains.is_empty() {
                    cx.flush(FlushWanted::Soon);
                }
                expire_working(cx);
            }
            MeshEvent::Attached { .. }
            | MeshEvent::BecameIdle { .. }
            | MeshEvent::Answered { .. }
            | MeshEvent::TopicPosted { .. }
            | MeshEvent::KeyEnded { .. }
            | MeshEvent::TopicStored { .. }
            | MeshEvent::MemberGone { .. }
            | MeshEvent::SimulatedTime { .. }
            | MeshEvent::Letter(_)
            | MeshEvent::Host(_)
            | MeshEvent::Stopping => {}
        }
    }

    fn collect(memory: &mut PresenceMemory, cx: &mut MeshContext<'_>, _: FlushWanted, batch: &mut Batch) {
        let part = batch.part::<SessionsPart>();
        part.stats.append(&mut memory.gains);
        for session in &mut part.sessions {
            if let Some(peer) = cx.roster().with_key(&session.session_key).first() {
                session.stats = memory.stats(*peer);
            }
        }
    }

    fn is_settled(memory: &PresenceMemory, _: &MeshContext<'_>) -> bool {
        memory.gains.is_empty()
    }

    fn greet(memory: &PresenceMemory, cx: &MeshContext<'_>, peer: PeerHandle, ack: &mut HelloAck) {
        if ack.restored == Some(true)
            && let Some(peer) = cx.roster().get(peer)
        {
            ack.restored_stats = Some(event_data(&memory.total(&peer.member)));
        }
    }

    fn describe(_: &PresenceMemory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        let Ok(own) = cx.asker() else { return };
        let seen = |peer: &&Peer| !peer.ephemeral && (peer.visible || peer.member == own.member);
        let groups: BTreeSet<String> = cx
            .roster()
            .iter()
            .filter(seen)
            .flat_map(|peer| &peer.groups)
            .chain(cx.roster().member_groups.values().flatten())
            .map(|group| format!("@{}", group.name))
            .collect();
        info.groups = groups.into_iter().collect();
        info.peers = u32::try_from(cx.roster().iter().filter(seen).count()).unwrap_or(u32::MAX);
    }

    async fn upkeep(db: &Db, now_ms: i64) -> Result<usize, DbError> {
        sessions::forget_before(db, now_ms - limits::millis(limits::QUEUE_TTL)).await
    }
}

fn set_status(cx: &mut MeshContext<'_>, set: &SetStatus) -> Result<Outcome<Sessions>, Refusal> {
    let peers = sessions_of(cx, &set.target)?;
    for peer in &peers {
        cx.set_status(*peer, set.status, StatusSource::Manual);
    }
    Ok(confirm(&peers))
}

fn set_summary(cx: &mut MeshContext<'_>, set: SetSummary) -> Result<Outcome<Sessions>, Refusal> {
    if set.summary.chars().count() > limits::MAX_SUMMARY_CHARS {
        return Err(too_long("summary", limits::MAX_SUMMARY_CHARS));
    }
    let summary = Some(set.summary).filter(|text| !text.trim().is_empty());
    let peers = sessions_of(cx, &set.target)?;
    for at in &peers {
        cx.change_peer(*at, |peer| peer.summary.clone_from(&summary));
    }
    Ok(confirm(&peers))
}

fn set_stats(memory: &mut PresenceMemory, cx: &MeshContext<'_>, set: SetStats) -> Result<Outcome<Nothing>, Refusal> {
    let peer = cx.peer()?;
    if let Some(stats) = set.stats {
        memory.set(peer.handle, &peer.member, stats);
    }
    Ok(Outcome::Answer(Nothing {}))
}

fn set_visible(cx: &mut MeshContext<'_>, set: &SetVisible) -> Result<Outcome<Sessions>, Refusal> {
    let peers = sessions_of(cx, &set.target)?;
    for at in &peers {
        let Some(peer) = cx.roster().get(*at) else { continue };
        let changed = peer.visible != set.visible;
        cx.change_peer(*at, |peer| peer.visible = set.visible);
        if changed {
            announce::visibility(cx, *at);
        }
    }
    acknowledge(cx);
    Ok(confirm(&peers))
}

fn set_profile(cx: &mut MeshContext<'_>, set: SetProfile) -> Result<Outcome<Sessions>, Refusal> {
    let peers = sessions_of(cx, &set.target)?;
    if serde_json::to_vec(&set.profile).map_or(0, |text| text.len()) > limits::MAX_PROFILE_BYTES {
        return Err(too_long("profile", limits::MAX_PROFILE_BYTES));
    }
    for at in &peers {
        cx.change_peer(*at, |peer| peer.profile.merge(set.profile.clone()));
    }
    acknowledge(cx);
    Ok(confirm(&peers))
}

fn list_peers(memory: &PresenceMemory, cx: &MeshContext<'_>) -> Result<Outcome<PeersList>, Refusal> {
    let own = cx.asker()?;
    // A client of the reference system takes each entry for a peer that is here, and the first of a name for the one it means.
    let here = cx.roster().iter().filter(|peer| peer.online());
    let away = cx.roster().iter().filter(|peer| !peer.online() && !own.older);
    let peers = here
        .chain(away)
        .filter(|peer| !peer.ephemeral && (peer.visible || peer.member == own.member))
        .take(MAX_LISTED)
        .map(|peer| view(memory, cx.roster(), peer, own.handle))
        .collect();
    Ok(Outcome::Answer(PeersList { peers }))
}

/// `working` without a sign of life becomes `idle`.
fn expire_working(cx: &mut MeshContext<'_>) {
    let (mono, ttl) = (cx.mono_ms(), i64::from(cx.connections().working_ttl_seconds) * 1_000);
    let expired: Vec<PeerHandle> = cx
        .roster()
        .iter()
        .filter(|peer| peer.status == PeerStatus::Working && mono - peer.status_mono_ms >= ttl)
        .map(|peer| peer.handle)
        .collect();
    for peer in expired {
        metrics::METRICS.working_expired.inc();
        cx.set_status(peer, PeerStatus::Idle, StatusSource::Expired);
    }
}

/// `set_visible` and `set_profile` have always had an answer: an `ack` whose id is the request id. One that asks for a
/// confirmation gets that instead.
fn acknowledge(cx: &mut MeshContext<'_>) {
    if let Some(to) = cx.reply_to().filter(|to| !to.confirm) {
        let id = to.req_id.as_deref().or(to.id.as_deref()).unwrap_or_default().to_owned();
        cx.reply(&to, &Ack { id, ..Ack::default() }.into());
    }
}

fn too_long(field: &str, limit: usize) -> Refusal {
    Refusal::new(ErrorCode::InvalidArgs, format!("`{field}`: expected at most {limit} characters"))
}

fn view(memory: &PresenceMemory, roster: &Roster, peer: &Peer, own: PeerHandle) -> PeerView {
    PeerView {
        pubkey: peer.key(),
        member_pubkey: peer.member_key,
        member_id: Some(peer.member.clone()),
        member_name: roster.member(&peer.member).map(|member| member.display_name.clone()),
        display_name: peer.name.clone(),
        status: peer.status,
        summary: peer.summary.clone(),
        groups: roster.all_groups(peer),
        member_groups: roster.groups_of(&peer.member).to_vec(),
        session_id: peer.session_id.clone(),
        connected_at: iso(peer.connected_at_ms),
        cwd: peer.cwd.clone(),
        peer_role: if peer.control_plane { "control-plane" } else { "session" }.into(),
        role: roster.member(&peer.member).map(|member| member.role.as_str().into()),
        online: peer.online(),
        last_seen_at: Some(iso(peer.last_seen_ms)),
        is_self: (peer.handle == own).then_some(true),
        waiting: None,
        hostname: peer.hostname.clone(),
        peer_type: peer.peer_type.clone(),
        channel: peer.channel.clone(),
        model: peer.model.clone(),
        stats: Some(memory.stats(peer.handle)).filter(|stats| *stats != Default::default()),
        visible: Some(peer.visible),
        profile: Some(peer.profile.clone()).filter(|profile| !profile.is_empty()),
    }
}
