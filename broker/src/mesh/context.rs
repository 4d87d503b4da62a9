//! What a feature may use while it handles one frame: who asks, the roster, pushing, time, storage.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Priority, Push, Response as Messaging};
use claudemesh_protocol::features::presence::PeerStatus;
use claudemesh_protocol::id::{MeshId, PublicKey};
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::session::SelfEditable;
use claudemesh_protocol::time::iso;
use serde_json::Value;

use super::events::MeshEvent;
use super::hooks::HookBoard;
use super::outcome::{Reject, ReplyTo, Work};
use super::peers::{Member, Peer, PeerRef, Role, Roster, StatusSource};
use super::topics::TopicBook;
use crate::clock::SharedClock;
use crate::config::{Connections, Limits};
use crate::db::Db;
use crate::features::meshes::store::MeshRecord;
use crate::journal::{Journal, MeshStore};
use crate::metrics::METRICS;
use crate::session::CloseReason;

/// Frames a second that one mesh may spend on presence events; beyond it peers get one `roster_changed` instead.
///
/// A thousand peers that arrive together would otherwise cost a million frames.
pub const PRESENCE_FRAMES_PER_SECOND: u64 = 4_000;

/// What every feature of a mesh shares.
pub struct Core {
    /// Row id.
    pub id: MeshId,
    /// Slug.
    pub slug: String,
    /// Key that signs invites.
    pub owner_key: PublicKey,
    /// What members may edit themselves.
    pub self_editable: SelfEditable,
    /// Peers and members.
    pub roster: Roster,
    /// Topics and their subscribers.
    pub topics: TopicBook,
    /// Time.
    pub clock: SharedClock,
    /// Storage.
    pub db: Db,
    /// Group commit.
    pub journal: Journal,
    /// Rate limits in force.
    pub limits: Limits,
    /// Connection settings.
    pub connections: Connections,
    /// Hook tokens over the whole broker.
    pub hooks: Arc<HookBoard>,
    /// Events to deliver after this frame.
    pub events: VecDeque<MeshEvent>,
    /// Work admitted by this frame.
    pub work: Vec<Work>,
    /// Peers whose presence must be stored.
    pub dirty: HashSet<PublicKey>,
    /// Something for the journal is pending: arm the flush timer.
    pub flush_wanted: FlushWanted,
    /// Frames left for presence events in this second.
    pub presence_budget: u64,
    /// Presence events that were left out since the last `roster_changed`.
    pub presence_skipped: u64,
    /// Members were changed in storage and could not be read again yet.
    pub members_stale: bool,
}

impl Core {
    /// A mesh with nothing under way.
    pub fn new(mesh: MeshRecord, roster: Roster, topics: TopicBook, shared: &Shared) -> Self {
        Self {
            id: mesh.id,
            slug: mesh.slug,
            owner_key: mesh.owner_pubkey,
            self_editable: mesh.self_editable,
            roster,
            topics,
            clock: shared.clock.clone(),
            db: shared.db.clone(),
            journal: shared.journal.clone(),
            limits: shared.limits.clone(),
            connections: shared.connections.clone(),
            hooks: shared.hooks.clone(),
            events: VecDeque::new(),
            work: Vec::new(),
            dirty: HashSet::new(),
            flush_wanted: FlushWanted::No,
            presence_budget: PRESENCE_FRAMES_PER_SECOND,
            presence_skipped: 0,
            members_stale: false,
        }
    }
}

impl Core {
    /// This mesh's storage.
    pub fn storage(&self) -> MeshStore {
        MeshStore::new(self.db.clone(), self.id.clone(), self.journal.clone())
    }
}

/// How urgent the journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlushWanted {
    /// Nothing to write.
    #[default]
    No,
    /// All that is pending is on its way to recipients that acknowledge, and then needs no row: give it a moment.
    Expected,
    /// Within the batch window.
    Soon,
    /// At once: the batch is full or somebody waits for storage to catch up.
    Now,
}

/// The narrow view of [`Core`] that a handler gets.
pub struct MeshContext<'a> {
    /// Shared parts of the mesh.
    pub core: &'a mut Core,
    /// Who asks; `None` for timers and events.
    pub caller: Option<Caller>,
}

/// The asking peer and its request's ids.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub peer: PeerRef,
    /// `_reqId`.
    pub req_id: Option<Arc<str>>,
    /// `id`.
    pub id: Option<Arc<str>>,
}

impl MeshContext<'_> {
    /// Wall time.
    pub fn now_ms(&self) -> i64 {
        self.core.clock.now_ms()
    }

    /// Monotonic time.
    pub fn mono_ms(&self) -> i64 {
        self.core.clock.mono_ms()
    }

    /// The asking peer.
    ///
    /// # Errors
    /// `no_hello` when it is gone; the frame was on its way while the record was removed.
    pub fn peer(&self) -> Result<&Peer, Reject> {
        self.caller
            .as_ref()
            .and_then(|caller| self.core.roster.get(caller.peer))
            .ok_or_else(|| Reject::new(ErrorCode::NoHello, "this connection was ended"))
    }

    /// The asking member.
    ///
    /// # Errors
    /// As [`MeshContext::peer`].
    pub fn member(&self) -> Result<&Member, Reject> {
        let peer = self.peer()?;
        self.core.roster.member(&peer.member).ok_or_else(|| Reject::new(ErrorCode::Unauthorized, "the member is gone"))
    }

    /// Refuses callers below a role.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require(&self, role: Role) -> Result<(), Reject> {
        if self.member()?.role >= role {
            return Ok(());
        }
        Err(Reject::new(ErrorCode::Forbidden, format!("this needs the role {}", role.as_str())))
    }

    /// What an answer needs later.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        let caller = self.caller.as_ref()?;
        let peer = self.core.roster.get(caller.peer)?;
        Some(ReplyTo {
            peer: caller.peer,
            socket_no: peer.socket_no,
            req_id: caller.req_id.clone(),
            id: caller.id.clone(),
        })
    }

    /// Answers a request whose handler returned earlier. Nothing happens when its socket is gone.
    pub fn reply(&mut self, to: &ReplyTo, message: &ServerMessage) {
        self.reply_text(to, message.write(to.req_id.as_deref()).into());
    }

    /// As [`MeshContext::reply`], with a frame that has the request's ids.
    pub fn reply_text(&mut self, to: &ReplyTo, frame: ByteString) {
        if let Some(peer) = self.core.roster.get(to.peer)
            && peer.socket_no == to.socket_no
        {
            answer_text(peer, frame);
        }
    }

    /// Sends a frame to one peer; `false` when it is away or its queue is full.
    pub fn push_to(&self, peer: PeerRef, frame: &ByteString) -> bool {
        self.core.roster.get(peer).is_some_and(|peer| send_text(peer, frame.clone()))
    }

    /// Sends a frame to every online, non-ephemeral peer but those that `skip` names.
    pub fn push_all(&self, frame: &ByteString, skip: impl Fn(&Peer) -> bool) {
        for peer in self.core.roster.iter() {
            if peer.online() && !peer.ephemeral && !skip(peer) {
                send_text(peer, frame.clone());
            }
        }
    }

    /// Pushes a system event, ephemeral and of priority `low`, to everyone but those that `skip` names.
    ///
    /// Bounded: beyond [`PRESENCE_FRAMES_PER_SECOND`] frames the event is left out and counted; see `Core::tick`.
    pub fn push_event(&mut self, event: &str, data: Value, skip: impl Fn(&Peer) -> bool) {
        let audience = self.core.roster.len() as u64;
        if self.core.presence_budget < audience {
            self.core.presence_skipped += 1;
            return;
        }
        self.core.presence_budget -= audience;
        let frame = system_push(&self.core.id, event, data, self.now_ms());
        self.push_all(&frame, skip);
    }

    /// Tells every feature after this frame.
    pub fn emit(&mut self, event: MeshEvent) {
        self.core.events.push_back(event);
    }

    /// Admits work that nobody waits for.
    pub fn spawn(&mut self, work: Work) {
        self.core.work.push(work);
    }

    /// Asks for a flush of the journal.
    pub fn flush(&mut self, when: FlushWanted) {
        self.core.flush_wanted = self.core.flush_wanted.max(when);
    }

    /// Notes that the presence of a peer changed and must be stored.
    pub fn touch(&mut self, peer: PeerRef) {
        if let Some(peer) = self.core.roster.get(peer)
            && !peer.ephemeral
        {
            self.core.dirty.insert(peer.key());
        }
    }

    /// Changes a status by the rules of precedence; says so to the features.
    pub fn set_status(&mut self, at: PeerRef, status: PeerStatus, source: StatusSource) {
        let mono = self.mono_ms();
        let Some(peer) = self.core.roster.get_mut(at) else { return };
        // Only the peer itself starts and ends `dnd`.
        if peer.status == PeerStatus::Dnd && source != StatusSource::Manual {
            return;
        }
        let before = peer.status;
        peer.status = status;
        peer.status_source = source;
        peer.status_mono_ms = mono;
        if status != before {
            self.touch(at);
        }
        if status == PeerStatus::Idle {
            self.emit(MeshEvent::BecameIdle { peer: at });
        }
    }

    /// Closes a peer's socket with a reason. The record stays until it is evicted.
    pub fn close(&self, peer: PeerRef, reason: CloseReason) {
        if let Some(socket) = self.core.roster.get(peer).and_then(|peer| peer.socket.as_ref()) {
            // Of a peer that does not read, the TCP user timeout ends the socket.
            socket.close(reason);
        }
    }
}

/// Hands the answer to a request to the socket that asked.
pub fn answer_text(peer: &Peer, frame: ByteString) {
    if let Some(socket) = &peer.socket {
        socket.answer(frame);
    }
}

/// Hands an event to a peer's socket.
pub fn send_text(peer: &Peer, frame: ByteString) -> bool {
    let Some(socket) = &peer.socket else { return false };
    let sent = socket.push(frame);
    if !sent {
        METRICS.events_dropped.inc();
    }
    sent
}

/// A system event as a push.
pub fn system_push(mesh: &MeshId, event: &str, data: Value, now_ms: i64) -> ByteString {
    let push = Push {
        message_id: uuid::Uuid::new_v4().to_string(),
        mesh_id: mesh.to_string(),
        sender_pubkey: "system".into(),
        priority: Priority::Low,
        created_at: iso(now_ms),
        subtype: Some("system".into()),
        event: Some(event.into()),
        event_data: Some(data),
        ..Push::default()
    };
    Messaging::Push(push).write(None).into()
}

/// Shared settings of all meshes.
#[derive(Clone)]
pub struct Shared {
    /// Time.
    pub clock: SharedClock,
    /// Storage.
    pub db: Db,
    /// Group commit.
    pub journal: Journal,
    /// Rate limits in force.
    pub limits: Limits,
    /// Connection settings.
    pub connections: Connections,
    /// Hook tokens and statuses that wait for their session.
    pub hooks: Arc<HookBoard>,
}
