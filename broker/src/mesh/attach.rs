//! Coming and going: hello, silent re-attach, lease, eviction.

use actix::Context;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::presence::{PeerStatus, Profile};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::session::{HelloAck, MemberProfile, MeshPolicy, Response};
use claudemesh_protocol::time::iso;
use claudemesh_protocol::version::{
    BROKER_CAPABILITIES, CAP_CLIENT_ACK, CAP_EPHEMERAL, CAP_NO_LEASE, CAP_PULL, CAP_SHELL, PROTOCOL_VERSION,
};

use super::actor::Mesh;
use super::context::{Core, FlushWanted, MeshContext, answer_text};
use super::events::MeshEvent;
use super::known_sessions;
use super::messages::Attach;
use super::peers::{KnownSession, Member, Moment, Peer, PeerHandle, StatusSource};
use crate::metrics::METRICS;
use crate::session::CloseReason;
use crate::session::hello::VerifiedHello;
use crate::session::queue::PeerSender;

/// The last places, one in so many, are for members that have fewer than [`FEW`] connections: one member cannot lock out the others,
/// nor those who could ban it.
const LAST_PLACES: usize = 10;
/// A session and a command beside it.
const FEW: usize = 2;

impl Mesh {
    fn has_place_for(&self, member: &MemberId) -> bool {
        let (used, all) = (self.core.roster.len(), self.core.connections.max_per_mesh);
        used < all - all / LAST_PLACES || (used < all && self.core.roster.of_member(member).len() < FEW)
    }

    /// Lets a verified hello in, or says why not.
    pub(super) fn attach(&mut self, attach: Attach, ctx: &mut Context<Self>) -> Result<PeerHandle, ErrorCode> {
        let Attach { mut hello, req_id, socket, socket_no, reached_at } = attach;
        let member = self.admit_member(&hello)?;
        // Who names its member key as session key has none: a session of that key would claim the member's queue from itself.
        hello.session_key = hello.session_key.filter(|session| *session != member.pubkey);
        let acts_for = self.session_of_verb(&hello, &member);
        let ephemeral = hello.description.can(CAP_EPHEMERAL) || acts_for.is_some();
        let key = hello.session_key.unwrap_or(hello.member_key);
        let squatted =
            hello.session_key.map_or(Ok(false), |session| self.check_session_key(&session, &hello, &member))?;
        let own_record = if ephemeral { None } else { self.own_record(&hello, &member) };
        if own_record.is_none() && !self.has_place_for(&member.id) {
            return Err(ErrorCode::Capacity);
        }
        if squatted {
            self.expel_squatters(&key, ctx);
        }
        let reattached = own_record.is_some();
        let own_state = self.core.roster.known.get(&key).cloned();
        let is_new = own_state.is_none();
        let known = own_state.or_else(|| self.member_state(&hello, &member).filter(|_| !ephemeral));
        let at = match own_record {
            Some(at) => self.take_over(at, &hello, socket, socket_no),
            None => {
                if !ephemeral {
                    self.replace_same_session(&hello, &member, ctx);
                }
                let at = self.new_record(&hello, &member, known.as_ref(), acts_for, (socket, socket_no));
                if is_new && let Some(peer) = self.core.roster.get_mut(at) {
                    // Another session of its member worked on that; it learns of it in the answer.
                    peer.summary = None;
                }
                at
            }
        };
        if let Some(peer) = self.core.roster.get_mut(at) {
            peer.reached_at = reached_at;
        }
        METRICS.connections_active.inc();
        if let Some(hash) = &hello.description.hook_token_hash
            && !ephemeral
        {
            let before = self.core.roster.get(at).and_then(|peer| peer.hook_token_hash.clone()).filter(|_| reattached);
            if before.as_ref() != Some(hash) {
                self.core.hooks.attach(hash, &self.core.id);
                if let Some(before) = before {
                    self.core.hooks.detach(&before, &self.core.id);
                }
                if let Some(peer) = self.core.roster.get_mut(at) {
                    peer.hook_token_hash = Some(hash.clone());
                }
            }
            self.claim_parked_status(at, hash, &hello);
        }
        self.acknowledge(at, &member, known.as_ref(), reattached, &hello, req_id.as_deref());
        if ephemeral {
            // Someone who works at a shell was here, too.
            let now = self.core.clock.now_ms();
            self.core.seen.insert(member.id.clone(), now);
            if let Some(member) = self.core.roster.member_mut(&member.id) {
                member.last_seen_at_ms = Some(now);
            }
        } else {
            self.remember(at);
        }
        self.step(ctx, None, |_, cx| {
            if !ephemeral && is_new {
                // A session that others may write to from now on is known after a crash, too.
                cx.flush(FlushWanted::Soon);
            }
            cx.emit(MeshEvent::Attached { peer: at, reattached, known: known.map(Box::new) });
        });
        Ok(at)
    }

    fn admit_member(&self, hello: &VerifiedHello) -> Result<Member, ErrorCode> {
        let member = self.core.roster.member_by_key(&hello.member_key).ok_or(ErrorCode::Unauthorized)?;
        if member.revoked_at_ms.is_some() {
            // Older clients know one word for both, and stay away only when they hear it.
            let told = member.removed_at_ms.is_some() && !says_nothing(hello);
            return Err(if told { ErrorCode::MemberRemoved } else { ErrorCode::Revoked });
        }
        if !hello.member_id.is_empty() && hello.member_id != member.id.as_str() {
            let proven = hello.proven;
            return Err(if proven { ErrorCode::ParentMemberIdMismatch } else { ErrorCode::MemberIdMismatch });
        }
        Ok(member.clone())
    }

    fn take_over(&mut self, at: PeerHandle, hello: &VerifiedHello, socket: PeerSender, socket_no: u64) -> PeerHandle {
        MeshContext::new(&mut self.core, None).close(at, CloseReason::SessionReplaced);
        let (mono, now) = (self.core.clock.mono_ms(), self.core.clock.now_ms());
        if let Some(peer) = self.core.roster.get_mut(at) {
            if peer.socket.is_some() {
                METRICS.connections_active.dec();
            }
            peer.socket = Some(socket);
            peer.socket_no = socket_no;
            peer.lease_ends_mono_ms = None;
            peer.heard_mono_ms = mono;
            peer.last_seen_ms = now;
            peer.cwd = cut(&hello.cwd);
            peer.pid = hello.pid;
            peer.session_id = cut(&hello.session_id);
            peer.proven = peer.proven || hello.proven;
            // A client that says nothing of itself and acknowledged before goes on to.
            peer.acks = acks(hello) || (peer.acks && says_nothing(hello));
            peer.pulls = hello.description.can(CAP_PULL);
            peer.older = says_nothing(hello);
            if let Some(name) = &hello.description.display_name
                && peer.renamed_from.as_ref() != Some(name)
            {
                peer.name.clone_from(name);
                peer.brought_name.clone_from(name);
                peer.renamed_from = None;
            }
            if let Some(groups) = hello.description.groups.as_ref().filter(|groups| !groups.is_empty()) {
                peer.groups.clone_from(groups);
            }
        }
        if let Some(sending) = self.core.roster.sending(at) {
            sending.outbox.rewind();
        }
        at
    }

    fn new_record(
        &mut self,
        hello: &VerifiedHello,
        member: &Member,
        known: Option<&KnownSession>,
        acts_for: Option<PeerHandle>,
        (socket, socket_no): (PeerSender, u64),
    ) -> PeerHandle {
        let (mono, now) = (self.core.clock.mono_ms(), self.core.clock.now_ms());
        let at = self.core.roster.next_ref();
        let description = &hello.description;
        let given = description.groups.clone().filter(|groups| !groups.is_empty() || hello.proven);
        let groups = given
            .or_else(|| known.map(|known| known.groups.clone()).filter(|groups| !groups.is_empty()))
            .unwrap_or_else(|| member.default_groups.clone());
        let fresh = Peer::new(at, member, hello.session_key, Moment { mono_ms: mono, wall_ms: now });
        let brought_name = description.display_name.clone().unwrap_or_default();
        // A session that was renamed keeps its name until its client brings another one.
        let renamed = known.filter(|known| known.renamed_from.as_ref() == Some(&brought_name));
        let shell = description.can(CAP_SHELL) && !hello.proven;
        self.core.roster.insert(Peer {
            proven: hello.proven,
            session_id: cut(&hello.session_id),
            name: match renamed {
                Some(known) => known.name.clone(),
                None => description.display_name.clone().unwrap_or(fresh.name),
            },
            renamed_from: renamed.map(|_| brought_name.clone()),
            brought_name,
            shell,
            pid: hello.pid,
            cwd: cut(&hello.cwd),
            hostname: description.hostname.clone(),
            peer_type: description.peer_type.clone(),
            channel: description.channel.clone(),
            model: description.model.clone(),
            hook_token_hash: description.hook_token_hash.clone(),
            ephemeral: description.can(CAP_EPHEMERAL) || acts_for.is_some(),
            acts_for,
            no_lease: description.can(CAP_NO_LEASE) || shell,
            acks: acks(hello),
            pulls: description.can(CAP_PULL),
            older: says_nothing(hello),
            control_plane: !hello.proven,
            groups,
            profile: known.map_or_else(Profile::default, |known| known.profile.clone()),
            visible: known.is_none_or(|known| known.visible),
            summary: known.and_then(|known| known.summary.clone()),
            socket: Some(socket),
            socket_no,
            ..fresh
        });
        at
    }

    fn claim_parked_status(&mut self, at: PeerHandle, hash: &str, hello: &VerifiedHello) {
        let mono = self.core.clock.mono_ms();
        let parked = self.shared.hooks.claim(hash, &hello.session_id, hello.pid, &hello.cwd, mono);
        if let (Some(status), Some(peer)) = (parked, self.core.roster.get_mut(at))
            && peer.status != PeerStatus::Dnd
        {
            peer.status = status.status;
            peer.status_source = StatusSource::Hook;
            peer.status_mono_ms = mono;
        }
    }

    /// Sends `hello_ack`: always the first frame on the socket, before any push.
    fn acknowledge(
        &mut self,
        at: PeerHandle,
        member: &Member,
        known: Option<&KnownSession>,
        reattached: bool,
        hello: &VerifiedHello,
        req_id: Option<&str>,
    ) {
        let Some(peer) = self.core.roster.get(at) else { return };
        let restored = known.is_some() && !reattached;
        let brought = hello.description.groups.as_ref().is_some_and(|groups| !groups.is_empty());
        let mut ack = HelloAck {
            presence_id: peer.presence.clone(),
            member_display_name: peer.name.clone(),
            member_name: Some(member.display_name.clone()),
            protocol_version: Some(PROTOCOL_VERSION),
            broker_version: Some(env!("CARGO_PKG_VERSION").into()),
            capabilities: BROKER_CAPABILITIES.iter().map(|word| (*word).to_owned()).collect(),
            member_role: Some(member.role.as_str().into()),
            reattached: reattached.then_some(true),
            waiting: None,
            member_profile: (!reattached || !hello.proven).then(|| MemberProfile {
                role_tag: member.role_tag.clone(),
                groups: member.default_groups.clone(),
                message_mode: member.message_mode.clone(),
            }),
            mesh_policy: Some(MeshPolicy { self_editable: self.core.self_editable }),
            restored: restored.then_some(true),
            last_summary: known.filter(|_| restored).and_then(|known| known.summary.clone()),
            last_seen_at: known.filter(|_| restored).map(|known| iso(known.last_seen_ms)),
            restored_groups: (restored && !brought && !peer.groups.is_empty()).then(|| peer.groups.clone()),
            restored_stats: None,
            services: vec![],
            features: Default::default(),
        };
        self.features.greet(&MeshContext::new(&mut self.core, None), at, &mut ack);
        let Some(peer) = self.core.roster.get(at) else { return };
        answer_text(peer, ServerMessage::from(Response::from(ack)).write(req_id).into());
    }

    /// Notes the session so that it can be addressed while it is away.
    fn remember(&mut self, at: PeerHandle) {
        let Some(peer) = self.core.roster.get(at) else { return };
        let (key, known) = (peer.key(), known_of(peer));
        if self.core.roster.known.insert(key, known).is_none() && self.core.roster.knows_many() {
            known_sessions::forget(&mut self.core);
        }
        self.core.dirty.insert(key);
        if let Some(member) = self.core.roster.get(at).map(|peer| peer.member.clone())
            && let Some(member) = self.core.roster.member_mut(&member)
        {
            member.last_seen_at_ms = Some(self.core.clock.now_ms());
        }
    }

    /// A socket closed: the record stays for the lease, unless it was a one-shot verb.
    pub(super) fn detach(&mut self, at: PeerHandle, socket_no: u64, ctx: &mut Context<Self>) {
        let lease = self.core.clock.mono_ms() + i64::from(self.core.connections.lease_seconds) * 1_000;
        let now = self.core.clock.now_ms();
        let Some(peer) = self.core.roster.get_mut(at).filter(|peer| peer.socket_no == socket_no) else { return };
        if peer.socket.take().is_some() {
            METRICS.connections_active.dec();
        }
        if peer.ephemeral {
            return self.evict(at, false, ctx);
        }
        let no_lease = peer.no_lease;
        peer.lease_ends_mono_ms = Some(lease);
        peer.last_seen_ms = now;
        if let Some(sending) = self.core.roster.sending(at) {
            sending.outbox.rewind();
        }
        self.remember(at);
        self.step(ctx, None, |_, cx| cx.emit(MeshEvent::Detached { peer: at }));
        if no_lease {
            self.evict(at, true, ctx);
        }
    }

    /// Ends leases, and sockets that were silent for too long (their own timers stop with a blocked socket).
    pub(super) fn expire_leases(&mut self, mono: i64, ctx: &mut Context<Self>) {
        let stale = limits::millis(limits::STALE_AFTER);
        let silent: Vec<(PeerHandle, u64)> = self
            .core
            .roster
            .iter()
            .filter(|peer| peer.online() && mono - peer.heard_mono_ms >= stale)
            .map(|peer| (peer.handle, peer.socket_no))
            .collect();
        for (at, socket_no) in silent {
            // It may come back to life: a socket that stays open while its frames are ignored would fool its client.
            MeshContext::new(&mut self.core, None).close(at, CloseReason::DisconnectedStale);
            self.detach(at, socket_no, ctx);
        }
        let ended: Vec<PeerHandle> = self
            .core
            .roster
            .iter()
            .filter(|peer| peer.lease_ends_mono_ms.is_some_and(|ends| mono >= ends))
            .map(|peer| peer.handle)
            .collect();
        for at in ended {
            self.evict(at, true, ctx);
        }
    }

    /// Removes a record; `announce` tells the others.
    pub(super) fn evict(&mut self, at: PeerHandle, announce: bool, ctx: &mut Context<Self>) {
        self.step(ctx, None, |_, cx| cx.end(at, announce));
    }

    /// Notes every session for storage, before a drain.
    pub(super) fn store_all_presence(&mut self) {
        for at in self.core.roster.refs() {
            if self.core.roster.get(at).is_some_and(|peer| !peer.ephemeral) {
                self.remember(at);
            }
        }
    }
}

/// Removes a record and what hangs on it, and tells the features. `announce`: the others are to learn of it.
pub(super) fn end(core: &mut Core, at: PeerHandle, announce: bool) {
    let Some(peer) = core.roster.remove(at) else { return };
    if peer.socket.is_some() {
        METRICS.connections_active.dec();
    }
    if !peer.ephemeral {
        if let Some(hash) = &peer.hook_token_hash {
            core.hooks.detach(hash, &core.id);
        }
        core.roster.known.insert(peer.key(), known_of(&peer));
        core.dirty.insert(peer.key());
    }
    core.events.push_back(MeshEvent::Ended { peer: at, record: Box::new(peer), announce });
}

/// What is remembered of a session that goes.
pub fn known_of(peer: &Peer) -> KnownSession {
    KnownSession {
        member: peer.member.clone(),
        name: peer.name.clone(),
        session_id: peer.session_id.clone(),
        last_seen_ms: peer.last_seen_ms,
        groups: peer.groups.clone(),
        profile: peer.profile.clone(),
        visible: peer.visible,
        summary: peer.summary.clone(),
        cwd: peer.cwd.clone(),
        hostname: peer.hostname.clone(),
        renamed_from: peer.renamed_from.clone(),
        proven: peer.proven,
    }
}

fn acks(hello: &VerifiedHello) -> bool {
    // Our protocol says it. Before, `session_hello` came together with `client_ack`, and a plain hello never acknowledged.
    let says = hello.description.protocol_version.is_some_and(|version| version >= PROTOCOL_VERSION);
    hello.description.can(CAP_CLIENT_ACK) || (hello.proven && !says)
}

/// Clients of before have no words for what they can do.
pub(super) fn says_nothing(hello: &VerifiedHello) -> bool {
    hello.description.protocol_version.is_none() && hello.description.capabilities.is_empty()
}

/// Cuts a text of a peer to what is kept of it.
pub fn cut(text: &str) -> String {
    text.chars().take(limits::MAX_TEXT_CHARS).collect()
}
