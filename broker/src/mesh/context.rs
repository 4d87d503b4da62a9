//! What a feature may use while it handles one step: who asks, the roster, pushing, time, storage.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::capabilities::Overrides;
use claudemesh_protocol::features::messaging::{Priority, Push, Response as Messaging};
use claudemesh_protocol::features::presence::PeerStatus;
use claudemesh_protocol::frame;
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::session::SelfEditable;
use claudemesh_protocol::time::iso;
use serde_json::Value;

use super::attach::end;
use super::dispatch::Feature;
use super::events::MeshEvent;
use super::fan_out::FanOut;
use super::hook_statuses::HookStatusRegistry;
use super::hosting::{Hosted, Hosting, ServiceBook, Viewer};
use super::keys::KeyBook;
use super::letter::Letter;
use super::outcome::{Lane, Outcome, ReplyTo, Work};
use super::own_limits;
use super::peers::{Member, Peer, PeerHandle, Roster, Sending, StatusSource};
pub use super::principal::Caller;
use super::principal::{Answer, Principal, Way};
use super::timers::Timers;
use super::topics::TopicBook;
use crate::audit::{Head, HeadSigner, SignedHead};
use crate::blobs::Blobs;
use crate::clock::SharedClock;
use crate::config::{Connections, Limits};
use crate::db::Db;
use crate::db::former_names::FormerNames;
use crate::db::member_groups::MemberGroups;
use crate::db::meshes::MeshRecord;
use crate::db::rights::{Rights, Subject};
use crate::journal::{BATCH_WINDOW, Journal, MeshStore};
use crate::metrics::METRICS;
use crate::quota::{Quota, Rates};
use crate::refusal::Refusal;
use crate::session::CloseReason;

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
    /// Who may do what, beside what roles have.
    pub rights: Rights,
    /// Topics and their subscribers.
    pub topics: TopicBook,
    /// API keys.
    pub keys: KeyBook,
    /// Services that the mesh hosts.
    pub services: ServiceBook,
    /// The door to their host.
    pub hosting: Arc<dyn Hosting>,
    /// Time.
    pub clock: SharedClock,
    /// Storage.
    pub db: Db,
    /// Group commit.
    pub journal: Journal,
    /// Signs the heads of audit chains.
    pub audit: Arc<HeadSigner>,
    /// Limits in force: the operator's, as far as the mesh has not set lower ones.
    pub limits: Limits,
    /// The operator's.
    pub operator_limits: Arc<Limits>,
    /// Connection settings.
    pub connections: Connections,
    /// Hook tokens over the whole broker.
    pub hooks: Arc<HookStatusRegistry>,
    /// Bytes that are too large for the database.
    pub blobs: Arc<Blobs>,
    /// Events to deliver after this frame.
    pub events: VecDeque<MeshEvent>,
    /// Work admitted by this frame.
    pub work: Vec<Work>,
    /// Peers whose presence must be stored.
    pub dirty: HashSet<PublicKey>,
    /// Members that came with a one-shot verb since the last batch, and when (Unix ms): they leave no session behind.
    pub seen: HashMap<MemberId, i64>,
    /// Something for the journal is pending: arm the flush timer.
    pub flush_wanted: FlushWanted,
    /// Times that features want to be woken at.
    pub timers: Timers,
    /// How long what is about to be acknowledged may wait for it before it is written.
    pub expected_window: Duration,
    /// What is told to many.
    pub fan_out: FanOut,
    /// Writes of the last minute.
    pub rates: Rates,
    /// Members were changed in storage and could not be read again yet.
    pub members_stale: bool,
}

impl Core {
    /// Takes over name, policy and limits, which HTTP may have changed.
    pub fn follow(&mut self, mesh: &MeshRecord) {
        self.slug.clone_from(&mesh.slug);
        self.self_editable = mesh.self_editable;
        self.limits = own_limits::lowered(&self.operator_limits, &mesh.limits);
    }

    /// A mesh with nothing under way.
    pub fn new(mesh: MeshRecord, roster: Roster, shared: &Shared) -> Self {
        Self {
            id: mesh.id,
            slug: mesh.slug,
            owner_key: mesh.owner_pubkey,
            self_editable: mesh.self_editable,
            roster,
            rights: Rights::default(),
            topics: TopicBook::default(),
            keys: KeyBook::default(),
            services: ServiceBook::default(),
            hosting: shared.hosting.clone(),
            clock: shared.clock.clone(),
            db: shared.db.clone(),
            journal: shared.journal.clone(),
            audit: shared.audit.clone(),
            limits: own_limits::lowered(&shared.limits, &mesh.limits),
            operator_limits: Arc::new(shared.limits.clone()),
            connections: shared.connections.clone(),
            hooks: shared.hooks.clone(),
            blobs: shared.blobs.clone(),
            events: VecDeque::new(),
            work: Vec::new(),
            dirty: HashSet::new(),
            seen: HashMap::new(),
            flush_wanted: FlushWanted::No,
            timers: Timers::default(),
            expected_window: BATCH_WINDOW,
            fan_out: FanOut::default(),
            rates: Rates::default(),
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
    /// All that is pending is on its way to recipients that acknowledge, and then needs no row: it may wait for that.
    Expected,
    /// Within the batch window.
    Soon,
    /// At once: the batch is full, or a peer waits for storage to catch up.
    Now,
}

/// What a feature sees of its mesh, and what it may do there.
pub struct MeshContext<'a> {
    pub(super) core: &'a mut Core,
    caller: Option<Caller>,
    /// The asking member as a peer that is not in the roster, when it has no connection.
    stand_in: Option<Box<Peer>>,
    feature: &'static str,
}

/// What a feature sees.
impl<'a> MeshContext<'a> {
    /// The view that a step has; without a caller for timers and events.
    pub fn new(core: &'a mut Core, caller: Option<Caller>) -> Self {
        let stand_in = match caller.as_ref().map(|caller| &caller.from) {
            Some(Principal::Member(id)) => core.roster.live_member(id).map(Peer::without_connection).map(Box::new),
            Some(Principal::Key(id)) => {
                let key = core.keys.live(id, core.clock.now_ms()).ok();
                let member = key.and_then(|key| core.roster.live_member(&key.member));
                member.map(Peer::without_connection).map(Box::new)
            }
            Some(Principal::Peer(_)) | None => None,
        };
        Self { core, caller, stand_in, feature: "mesh" }
    }

    /// From now on no one asks: what follows is the mesh's own.
    pub(super) fn without_caller(&mut self) {
        (self.caller, self.stand_in) = (None, None);
    }

    /// From now on it is this feature's turn.
    pub(crate) fn enter(&mut self, feature: &'static str) {
        self.feature = feature;
    }

    /// The request that is handled; `None` for timers and events.
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// The asking connection: for what is about that connection.
    ///
    /// # Errors
    /// `no_hello` when it is gone; the frame was on its way while the record was removed. `invalid` for a caller without one.
    pub fn peer(&self) -> Result<&Peer, Refusal> {
        match &self.stand_in {
            None => self.asker(),
            Some(_) => Err(Refusal::new(ErrorCode::Invalid, "this is about a connection, and the caller has none")),
        }
    }

    /// Who asks: a connection, or a stand-in for a member without one. Its `at` is then [`PeerHandle::NONE`], its name the member's.
    ///
    /// # Errors
    /// `no_hello` when the connection is gone, `revoked` when the member is.
    pub fn asker(&self) -> Result<&Peer, Refusal> {
        match self.caller.as_ref().map(|caller| &caller.from) {
            Some(Principal::Peer(at)) => self.core.roster.get(*at),
            Some(Principal::Key(_)) => return self.stand_in.as_deref().ok_or_else(|| ErrorCode::ApiKeyInvalid.into()),
            Some(Principal::Member(_)) => {
                let gone = || Refusal::new(ErrorCode::Revoked, "the caller is no member of this mesh any more");
                return self.stand_in.as_deref().ok_or_else(gone);
            }
            None => None,
        }
        .ok_or_else(|| Refusal::new(ErrorCode::NoHello, "this connection was ended"))
    }

    /// The asking member.
    ///
    /// # Errors
    /// As [`MeshContext::asker`].
    pub fn member(&self) -> Result<&Member, Refusal> {
        let asker = self.asker()?;
        self.core
            .roster
            .member(&asker.member)
            .ok_or_else(|| Refusal::new(ErrorCode::Unauthorized, "the member is gone"))
    }

    /// A lane for what this caller asks of a feature, in its order.
    pub fn own_lane<F: Feature>(&self) -> Lane {
        match &self.caller {
            Some(caller) => Lane::of::<F>(&caller.from),
            None => Lane::of::<F>("of the mesh"),
        }
    }

    /// Row id of the mesh.
    pub fn mesh_id(&self) -> &MeshId {
        &self.core.id
    }

    /// Slug of the mesh.
    pub fn slug(&self) -> &str {
        &self.core.slug
    }

    /// Peers, members and the sessions that are remembered.
    pub fn roster(&self) -> &Roster {
        &self.core.roster
    }

    /// Who may do what, beside what roles have.
    pub fn rights(&self) -> &Rights {
        &self.core.rights
    }

    /// The audiences that messages can be written to.
    pub fn topics(&self) -> &TopicBook {
        &self.core.topics
    }

    /// Services that the mesh hosts.
    pub fn services(&self) -> &ServiceBook {
        &self.core.services
    }

    /// Services that the mesh hosts, to change.
    pub fn services_mut(&mut self) -> &mut ServiceBook {
        &mut self.core.services
    }

    /// The door to the host of services.
    pub fn hosting(&self) -> Arc<dyn Hosting> {
        Arc::clone(&self.core.hosting)
    }

    /// Someone who looks at services: a session, with the groups of its member.
    pub fn viewer(&self, peer: &Peer) -> Viewer {
        // A command at the shell of a session sees what that session sees.
        let session = peer.acts_for.and_then(|at| self.core.roster.get(at)).unwrap_or(peer);
        Viewer { member: peer.member.clone(), groups: self.core.roster.all_groups(session) }
    }

    /// A service that someone may use: it is for them, and its member may still offer services.
    pub fn hosted(&self, name: &str, viewer: &Viewer) -> Option<&Hosted> {
        let service = self.core.services.get(name).filter(|service| service.is_for(viewer))?;
        let owner = self.core.roster.live_member(&service.owner)?;
        self.core.rights.allows(&owner.id, owner.role, Capability::CanDeployMcp).then_some(service)
    }

    /// Whether the member of a peer has a capability.
    pub fn allows_peer(&self, peer: &Peer, needed: Capability) -> bool {
        let member = self.core.roster.member(&peer.member);
        member.is_some_and(|member| self.core.rights.allows(&member.id, member.role, needed))
    }

    /// Storage of this mesh.
    pub fn storage(&self) -> MeshStore {
        self.core.storage()
    }

    /// Bytes that are too large for the database.
    pub fn blobs(&self) -> Arc<Blobs> {
        Arc::clone(&self.core.blobs)
    }

    /// Rate limits in force.
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// Connection settings.
    pub fn connections(&self) -> &Connections {
        &self.core.connections
    }

    /// Wall time.
    pub fn now_ms(&self) -> i64 {
        self.core.clock.now_ms()
    }

    /// Monotonic time.
    pub fn mono_ms(&self) -> i64 {
        self.core.clock.mono_ms()
    }

    /// Wall time for what cannot be taken back: expiring and deleting.
    pub fn believed_ms(&self) -> i64 {
        self.core.clock.believed_ms()
    }

    /// Whether the caller wants to hear that a silent request is done.
    pub fn wants_confirmation(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.confirm)
    }

    /// The confirmation of a silent request, made only when the caller wants it: for requests that come in masses.
    pub fn confirmed<A>(&self, body: A) -> Outcome<A> {
        if self.wants_confirmation() { Outcome::Answer(body) } else { Outcome::Silent }
    }

    /// What an answer needs later.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        let caller = self.caller.as_ref()?;
        let way = match (&caller.waiting, &caller.from) {
            (Some(waiting), _) => Way::Waiting(Arc::clone(waiting)),
            (None, Principal::Peer(at)) => Way::Socket { peer: *at, socket_no: self.core.roster.get(*at)?.socket_no },
            (None, Principal::Member(_) | Principal::Key(_)) => return None,
        };
        Some(ReplyTo { way, req_id: caller.req_id.clone(), id: caller.id.clone(), confirm: caller.confirm })
    }

    /// The end of the audit chain that was committed last; `None` when nothing was appended since the broker started.
    pub fn audit_head(&self) -> Option<Head> {
        self.core.journal.audit_head(&self.core.id)
    }

    /// The key that heads of audit chains are signed with.
    pub fn audit_key(&self) -> PublicKey {
        self.core.audit.public()
    }

    /// Signs the end of this mesh's audit chain, as of now.
    pub fn sign_head(&self, head: Head) -> SignedHead {
        self.core.audit.sign(&self.core.id, head, self.now_ms())
    }

    /// A system event, as a push of priority `low` that is never queued.
    pub fn system_event(&self, event: &str, data: Value) -> ServerMessage {
        system_event(&self.core.id, event, data, self.now_ms())
    }
}

/// What a feature may do.
impl MeshContext<'_> {
    /// Refuses a caller that may not do this.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require(&self, needed: Capability) -> Result<(), Refusal> {
        if self.may(needed)? {
            return Ok(());
        }
        Err(Refusal::lacks(needed))
    }

    /// Refuses a caller that may not do this to what belongs to others. Its own needs nothing more.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn require_own(&self, owner: &MemberId, needed: Capability) -> Result<(), Refusal> {
        if self.member()?.id == *owner { Ok(()) } else { self.require(needed) }
    }

    /// Whether the caller has a capability.
    ///
    /// # Errors
    /// As [`MeshContext::peer`].
    pub fn may(&self, capability: Capability) -> Result<bool, Refusal> {
        let member = self.member()?;
        let of_key = self.key().is_none_or(|key| key.allows(capability));
        Ok(of_key && self.core.rights.allows(&member.id, member.role, capability))
    }

    /// Refuses what would use more of a quota than there is.
    ///
    /// # Errors
    /// `limit`, with the bound.
    pub fn within(&self, quota: &Quota, used: usize, more: u64) -> Result<(), Refusal> {
        self.core.limits.quotas.within(quota, used as u64, more)
    }

    /// Counts a write against a quota a minute, of one member or of the whole mesh (`None`).
    ///
    /// # Errors
    /// `rate_limited`, with the bound and the time to wait.
    pub fn count_write(&mut self, quota: &'static Quota, member: Option<&MemberId>) -> Result<(), Refusal> {
        let mono = self.mono_ms();
        self.core.rates.count(&self.core.limits.quotas, quota, member, mono)
    }

    /// Takes over what a subject may do; storage has it already.
    pub fn change_rights(&mut self, of: &Subject, overrides: Overrides) {
        self.core.rights.put(of, overrides);
    }

    /// Changes a peer, and stores what is remembered of its session.
    pub fn change_peer(&mut self, at: PeerHandle, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.core.roster.get_mut(at) {
            change(peer);
            self.touch(at);
        }
    }

    /// What members are in what groups, to change; storage has it already.
    pub fn member_groups_mut(&mut self) -> &mut MemberGroups {
        &mut self.core.roster.member_groups
    }

    /// The names that someone had, to change; storage has it already.
    pub fn former_mut(&mut self) -> &mut FormerNames {
        &mut self.core.roster.former
    }

    /// The mesh has another owner; storage has it already.
    pub fn change_owner(&mut self, key: PublicKey) {
        self.core.owner_key = key;
    }

    /// The key that owns the mesh and signs its invites.
    pub fn owner_key(&self) -> PublicKey {
        self.core.owner_key
    }

    /// What members may edit themselves.
    pub fn self_editable(&self) -> SelfEditable {
        self.core.self_editable
    }

    /// Changes a member in memory; storage has it already.
    pub fn change_member(&mut self, id: &MemberId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.core.roster.member_mut(id) {
            change(member);
        }
    }

    /// Changes a status by the rules of precedence; says so to the features.
    pub fn set_status(&mut self, at: PeerHandle, status: PeerStatus, source: StatusSource) {
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

    /// The window of a peer: what is on its way to it.
    pub fn sending(&mut self, at: PeerHandle) -> Option<Sending<'_>> {
        self.core.roster.sending(at)
    }

    /// The audiences, to change.
    pub fn topics_mut(&mut self) -> &mut TopicBook {
        &mut self.core.topics
    }

    /// Answers a request whose handler returned earlier. Nothing happens when its socket is gone.
    pub fn reply(&mut self, to: &ReplyTo, message: &ServerMessage) {
        match &to.way {
            Way::Socket { .. } => self.reply_text(to, message.write(to.req_id.as_deref()).into()),
            Way::Waiting(waiting) => waiting.answer(Ok(message.clone())),
        }
    }

    /// As [`MeshContext::reply`], for a request that fails.
    pub fn refuse(&mut self, to: &ReplyTo, refusal: Refusal) {
        match &to.way {
            Way::Socket { .. } => self.reply(to, &refusal.into_frame(to.id.as_deref()).into()),
            Way::Waiting(waiting) => waiting.answer(Err(refusal)),
        }
    }

    /// As [`MeshContext::reply`], with a frame that has the request's ids.
    pub fn reply_text(&mut self, to: &ReplyTo, frame: ByteString) {
        match &to.way {
            Way::Socket { peer, socket_no } => {
                if let Some(peer) = self.core.roster.get(*peer).filter(|peer| peer.socket_no == *socket_no) {
                    answer_text(peer, frame);
                }
            }
            Way::Waiting(waiting) => waiting.answer(read_back(&frame)),
        }
    }

    /// Pushes an event to one peer; `false` when it is away or its queue is full.
    pub fn push(&self, peer: PeerHandle, event: &ServerMessage) -> bool {
        self.core.roster.get(peer).is_some_and(|peer| send_text(peer, event.write(None).into()))
    }

    /// Writes a message. It goes the way of `send`, so recipients who are away find it when they return.
    pub fn deliver(&mut self, letter: Letter) {
        self.emit(MeshEvent::Letter(Box::new(letter)));
    }

    /// Wakes this feature at a monotonic time; a later call with the same key replaces the time.
    pub fn wake_at(&mut self, key: impl Into<String>, mono_ms: i64) {
        self.core.timers.set(self.feature, key.into(), mono_ms);
    }

    /// Tells every feature after this step.
    pub fn emit(&mut self, event: MeshEvent) {
        self.core.events.push_back(event);
    }

    /// Admits work that no one waits for.
    pub fn spawn(&mut self, work: Work) {
        self.core.work.push(work);
    }

    /// Asks for a flush of the journal.
    pub fn flush(&mut self, when: FlushWanted) {
        self.core.flush_wanted = self.core.flush_wanted.max(when);
    }

    /// How long a flush that is [`FlushWanted::Expected`] may wait.
    pub fn expect_within(&mut self, window: Duration) {
        self.core.expected_window = window;
    }

    /// Closes a peer's socket with a reason. The record stays until it is ended.
    pub fn close(&self, peer: PeerHandle, reason: CloseReason) {
        if let Some(socket) = self.core.roster.get(peer).and_then(|peer| peer.socket.as_ref()) {
            // Of a peer that does not read, the TCP user timeout ends the socket.
            socket.close(reason);
        }
    }

    /// Removes a record; `announce` tells the others.
    pub fn end(&mut self, at: PeerHandle, announce: bool) {
        end(self.core, at, announce);
    }

    fn touch(&mut self, peer: PeerHandle) {
        if let Some(peer) = self.core.roster.get(peer)
            && !peer.ephemeral
        {
            self.core.dirty.insert(peer.key());
        }
    }
}

/// A frame that was written for a socket, for someone who has none.
fn read_back(text: &str) -> Answer {
    let head = frame::Head::read(text).map_err(|error| Refusal::fault(ErrorCode::Internal, error))?;
    ServerMessage::read(&head, text).map_err(|error| Refusal::fault(ErrorCode::Internal, error))
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
pub(super) fn system_event(mesh: &MeshId, event: &str, data: Value, now_ms: i64) -> ServerMessage {
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
    Messaging::Push(push).into()
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
    /// Signs the heads of audit chains.
    pub audit: Arc<HeadSigner>,
    /// Rate limits in force.
    pub limits: Limits,
    /// Connection settings.
    pub connections: Connections,
    /// Hook tokens and statuses that wait for their session.
    pub hooks: Arc<HookStatusRegistry>,
    /// Bytes that are too large for the database.
    pub blobs: Arc<Blobs>,
    /// The door to the host of services.
    pub hosting: Arc<dyn Hosting>,
}
