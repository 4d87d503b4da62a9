//! The roster: who is in the mesh, connected or in lease grace, and who its members are.
//!
//! Plain data without actix. Every lookup that a frame needs is a hash map access; nothing here walks all peers except
//! audiences and lists, which have to.

use std::ops::Deref;
use std::sync::Arc;

use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::members::Grant;
use claudemesh_protocol::features::presence::{PeerStatus, Profile};
use claudemesh_protocol::id::{MemberId, PresenceId, PublicKey};
use claudemesh_protocol::target::group_covers;

use super::outbox::Outbox;
use crate::hash::FastMap;
use crate::session::queue::PeerSender;

/// Handle of a peer inside one mesh; never reused while the mesh is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerHandle(pub u64);

impl PeerHandle {
    /// The handle that no peer has.
    pub const NONE: Self = Self(0);
}

use crate::db::former_names::FormerNames;
use crate::db::member_groups::MemberGroups;
pub use crate::db::members::{Member, Role};

/// Whether a sender may do something to a member: its member key decides, then its session key, then the default.
pub fn allows(member: &Member, sender_member: &PublicKey, sender_key: &PublicKey, grant: Grant) -> bool {
    let entry = member.grants.get(sender_member).or_else(|| member.grants.get(sender_key));
    entry.map_or_else(|| Grant::DEFAULT.contains(&grant), |list| list.contains(&grant))
}

/// Where a status came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusSource {
    /// Nothing is known yet.
    Initial,
    /// The peer or its human said so.
    Manual,
    /// A hook of the host said so.
    Hook,
    /// `working` ran out.
    Expired,
}

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Monotonic ms.
    pub mono_ms: i64,
    /// Wall ms.
    pub wall_ms: i64,
}

/// One connection record: a session with an open socket or in lease grace.
pub struct Peer {
    /// Handle.
    pub handle: PeerHandle,
    /// Wire id.
    pub presence: PresenceId,
    /// The member it belongs to.
    pub member: MemberId,
    /// The member's key.
    pub member_key: PublicKey,
    /// Session key, when it has one.
    pub session_key: Option<PublicKey>,
    /// Whether the session key was proven (`session_hello`).
    pub proven: bool,
    /// The client's session id.
    pub session_id: String,
    /// Effective name.
    pub name: String,
    /// Process id.
    pub pid: u64,
    /// Working directory.
    pub cwd: String,
    /// Host.
    pub hostname: Option<String>,
    /// `ai`, `human`, …
    pub peer_type: Option<String>,
    /// Kind of client.
    pub channel: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// SHA-256 of the hook token.
    pub hook_token_hash: Option<String>,
    /// One-shot verb: neither listed nor a recipient.
    pub ephemeral: bool,
    /// Leaves with its socket, without grace.
    pub no_lease: bool,
    /// Sends `client_ack`.
    pub acks: bool,
    /// Pulls `low` itself.
    pub pulls: bool,
    /// Said nothing of what it can do: a client of before, which knows no field that is newer.
    pub older: bool,
    /// A verb at the shell of a session: acts for the record with its session id.
    pub acts_for: Option<PeerHandle>,
    /// `hello` connections are a member's control plane.
    pub control_plane: bool,
    /// Groups with roles.
    pub groups: Vec<Group>,
    /// What it says about itself.
    pub profile: Profile,
    /// In lists and audiences.
    pub visible: bool,
    /// The name that its client brought along, when it was renamed since.
    pub renamed_from: Option<String>,
    /// The name that its client brought along; empty for none.
    pub brought_name: String,
    /// A shell that reads for its member: no session, see [`claudemesh_protocol::version::CAP_SHELL`].
    pub shell: bool,
    /// What it works on.
    pub summary: Option<String>,
    /// Status.
    pub status: PeerStatus,
    /// Where it came from.
    pub status_source: StatusSource,
    /// Monotonic ms of the last sign that the status holds.
    pub status_mono_ms: i64,
    /// Wall ms of the attach that made the record.
    pub connected_at_ms: i64,
    /// Wall ms of the last frame.
    pub last_seen_ms: i64,
    /// Monotonic ms of the last frame or pong.
    pub heard_mono_ms: i64,
    /// How it reached the broker, `http://host`, when the broker could tell.
    pub reached_at: Option<Arc<str>>,
    /// The socket; `None` in lease grace.
    pub socket: Option<PeerSender>,
    /// Number of the socket, so that the end of an old one cannot end a new one.
    pub socket_no: u64,
    /// Monotonic ms when the lease ends; set while there is no socket.
    pub lease_ends_mono_ms: Option<i64>,
}

/// A record with what is on its way to it: apart, so that the one can be read while the other is changed.
struct Record {
    peer: Peer,
    outbox: Outbox,
}

/// A peer whose window of pushes can be changed, and nothing else of it.
pub struct Sending<'a> {
    peer: &'a Peer,
    /// What is on its way to it.
    pub outbox: &'a mut Outbox,
}

impl Deref for Sending<'_> {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        self.peer
    }
}

impl Peer {
    /// A session of a member that has said nothing of itself: idle, visible, without a socket.
    pub fn new(at: PeerHandle, member: &Member, session_key: Option<PublicKey>, now: Moment) -> Self {
        Self {
            handle: at,
            presence: PresenceId::random(&mut rand::thread_rng()),
            member: member.id.clone(),
            member_key: member.pubkey,
            session_key,
            proven: false,
            session_id: String::new(),
            name: member.display_name.clone(),
            pid: 0,
            cwd: String::new(),
            hostname: None,
            peer_type: None,
            channel: None,
            model: None,
            hook_token_hash: None,
            ephemeral: false,
            no_lease: false,
            acks: false,
            pulls: false,
            older: false,
            acts_for: None,
            control_plane: false,
            groups: vec![],
            profile: Profile::default(),
            visible: true,
            renamed_from: None,
            brought_name: String::new(),
            shell: false,
            summary: None,
            status: PeerStatus::Idle,
            status_source: StatusSource::Initial,
            status_mono_ms: now.mono_ms,
            connected_at_ms: now.wall_ms,
            last_seen_ms: now.wall_ms,
            heard_mono_ms: now.mono_ms,
            reached_at: None,
            socket: None,
            socket_no: 0,
            lease_ends_mono_ms: None,
        }
    }

    /// Key to send to and to answer to.
    pub fn key(&self) -> PublicKey {
        self.session_key.unwrap_or(self.member_key)
    }

    /// A member without a connection, as a peer that is not in the roster: no session of the member is left out of an audience.
    pub fn without_connection(member: &Member) -> Self {
        Self::new(PeerHandle::NONE, member, None, Moment::default())
    }

    /// Whether a socket is open.
    pub fn online(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether the session itself belongs to an audience.
    pub fn in_group(&self, audience: &str) -> bool {
        are_in(&self.groups, audience)
    }
}

/// Whether one of these groups belongs to an audience.
fn are_in(groups: &[Group], audience: &str) -> bool {
    groups.iter().any(|group| group_covers(audience, &group.name))
}

/// A session that was here in the last seven days.
#[derive(Clone, Debug)]
pub struct KnownSession {
    /// Whose it is.
    pub member: MemberId,
    /// Name it had.
    pub name: String,
    /// The client's session id.
    pub session_id: String,
    /// Wall ms.
    pub last_seen_ms: i64,
    /// Presence to restore.
    pub groups: Vec<Group>,
    /// Presence to restore.
    pub profile: Profile,
    /// Presence to restore.
    pub visible: bool,
    /// Presence to restore.
    pub summary: Option<String>,
    /// Working directory it had.
    pub cwd: String,
    /// Host it ran on.
    pub hostname: Option<String>,
    /// The name that its client brings along, when it was renamed.
    pub renamed_from: Option<String>,
    /// Whether its key was proven once; then only a proof re-attaches it.
    pub proven: bool,
}

/// Members and peers with their indexes.
#[derive(Default)]
pub struct Roster {
    /// Boxed: a map keeps up to half of its places empty, and a record is large.
    peers: FastMap<PeerHandle, Box<Record>>,
    order: std::collections::BTreeSet<PeerHandle>,
    next: u64,
    by_key: FastMap<PublicKey, Vec<PeerHandle>>,
    by_member: FastMap<MemberId, Vec<PeerHandle>>,
    members: FastMap<MemberId, Member>,
    member_by_key: FastMap<PublicKey, MemberId>,
    /// Sessions by key, connected or not.
    pub known: FastMap<PublicKey, KnownSession>,
    /// How many of them the last look left.
    pub known_left: usize,
    /// Groups that members are in themselves.
    pub member_groups: MemberGroups,
    /// Names that mean someone for a while after a renaming.
    pub former: FormerNames,
}

impl Roster {
    /// The next free handle.
    pub fn next_ref(&mut self) -> PeerHandle {
        self.next += 1;
        PeerHandle(self.next)
    }

    /// Adds a peer under its handle.
    pub fn insert(&mut self, peer: Peer) {
        let at = peer.handle;
        if !peer.ephemeral {
            self.by_key.entry(peer.key()).or_default().push(at);
            self.by_member.entry(peer.member.clone()).or_default().push(at);
        }
        self.order.insert(at);
        self.peers.insert(at, Box::new(Record { peer, outbox: Outbox::default() }));
    }

    /// Removes a peer.
    pub fn remove(&mut self, at: PeerHandle) -> Option<Peer> {
        let peer = self.peers.remove(&at)?.peer;
        self.order.remove(&at);
        if let Some(list) = self.by_key.get_mut(&peer.key()) {
            list.retain(|other| *other != at);
        }
        if let Some(list) = self.by_member.get_mut(&peer.member) {
            list.retain(|other| *other != at);
        }
        if self.by_key.get(&peer.key()).is_some_and(Vec::is_empty) {
            self.by_key.remove(&peer.key());
        }
        if self.by_member.get(&peer.member).is_some_and(Vec::is_empty) {
            self.by_member.remove(&peer.member);
        }
        Some(peer)
    }

    /// A peer.
    pub fn get(&self, at: PeerHandle) -> Option<&Peer> {
        self.peers.get(&at).map(|record| &record.peer)
    }

    /// A peer, to change.
    pub fn get_mut(&mut self, at: PeerHandle) -> Option<&mut Peer> {
        self.peers.get_mut(&at).map(|record| &mut record.peer)
    }

    /// What is on its way to a peer.
    pub fn outbox(&self, at: PeerHandle) -> Option<&Outbox> {
        self.peers.get(&at).map(|record| &record.outbox)
    }

    /// What is on its way to a peer, to change.
    pub fn sending(&mut self, at: PeerHandle) -> Option<Sending<'_>> {
        self.peers.get_mut(&at).map(|record| Sending { peer: &record.peer, outbox: &mut record.outbox })
    }

    /// All peers, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.order.iter().filter_map(|at| self.get(*at))
    }

    /// Handles of all peers, oldest first.
    pub fn refs(&self) -> Vec<PeerHandle> {
        self.order.iter().copied().collect()
    }

    /// Connection records, ephemeral ones included.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// No one is there.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Peers that answer to exactly this key (a session, or a member's connections without session key).
    pub fn with_key(&self, key: &PublicKey) -> &[PeerHandle] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// Every session of a member.
    pub fn of_member(&self, member: &MemberId) -> &[PeerHandle] {
        self.by_member.get(member).map_or(&[], Vec::as_slice)
    }

    /// Members that are in an audience themselves, in joining order.
    pub fn members_in(&self, audience: &str) -> Vec<MemberId> {
        let of = self.member_groups.iter().filter(|(_, groups)| are_in(groups, audience));
        let mut found: Vec<&Member> = of.filter_map(|(id, _)| self.members.get(id)).collect();
        found.sort_unstable_by_key(|member| (member.joined_at_ms, &member.id));
        found.into_iter().filter(|member| member.revoked_at_ms.is_none()).map(|member| member.id.clone()).collect()
    }

    /// Groups that a member is in itself.
    pub fn groups_of(&self, member: &MemberId) -> &[Group] {
        self.member_groups.get(member).map_or(&[], Vec::as_slice)
    }

    /// The groups of a session: its own, and those of its member that it is not in itself.
    pub fn all_groups(&self, peer: &Peer) -> Vec<Group> {
        let own = |group: &&Group| !peer.groups.iter().any(|other| other.name == group.name);
        peer.groups.iter().chain(self.groups_of(&peer.member).iter().filter(own)).cloned().collect()
    }

    /// A member by id.
    pub fn member(&self, id: &MemberId) -> Option<&Member> {
        self.members.get(id)
    }

    /// A member by id that is not banned.
    pub fn live_member(&self, id: &MemberId) -> Option<&Member> {
        self.member(id).filter(|member| member.revoked_at_ms.is_none())
    }

    /// A member by key, banned ones included.
    pub fn member_by_key(&self, key: &PublicKey) -> Option<&Member> {
        self.member_by_key.get(key).and_then(|id| self.members.get(id))
    }

    /// All members.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Takes over a member's row.
    pub fn put_member(&mut self, member: Member) {
        self.member_by_key.insert(member.pubkey, member.id.clone());
        self.members.insert(member.id.clone(), member);
    }

    /// Changes a member.
    pub fn member_mut(&mut self, id: &MemberId) -> Option<&mut Member> {
        self.members.get_mut(id)
    }
}
