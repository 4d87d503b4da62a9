//! Whose a session key is, and which record a hello continues, replaces or ends.

use actix::Context;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::PublicKey;

use super::actor::Mesh;
use super::attach::{cut, says_nothing};
use super::context::MeshContext;
use super::peers::{KnownSession, Member, Peer, PeerHandle};
use crate::session::CloseReason;
use crate::session::hello::VerifiedHello;

impl Mesh {
    /// Whether a member may come with this session key; `true` when another member claimed it before, without a proof.
    ///
    /// A session key belongs to the member that used it first, but a proof beats a claim; once proven, only a proof opens it
    /// again. The key of a member is no one's session key: what waits for the member waits under it.
    pub(super) fn check_session_key(
        &self,
        session: &PublicKey,
        hello: &VerifiedHello,
        member: &Member,
    ) -> Result<bool, ErrorCode> {
        let roster = &self.core.roster;
        match roster.known.get(session) {
            Some(known) if known.proven && !hello.proven => Err(ErrorCode::AttestationMismatch),
            Some(known) if known.member == member.id => Ok(false),
            Some(known) if hello.proven && !known.proven => Ok(true),
            Some(_) => Err(ErrorCode::AttestationMismatch),
            None if !hello.proven && roster.member_by_key(session).is_some() => Err(ErrorCode::AttestationMismatch),
            None => Ok(false),
        }
    }

    /// Ends what others have under a session key that is not theirs.
    pub(super) fn expel_squatters(&mut self, key: &PublicKey, ctx: &mut Context<Self>) {
        for at in self.core.roster.with_key(key).to_vec() {
            MeshContext::new(&mut self.core, None).close(at, CloseReason::SessionReplaced);
            self.evict(at, true, ctx);
        }
        self.core.roster.known.remove(key);
    }

    /// The record that this hello continues: same key and member; without session key the same session id.
    pub(super) fn own_record(&self, hello: &VerifiedHello, member: &Member) -> Option<PeerHandle> {
        let key = hello.session_key.unwrap_or(hello.member_key);
        self.core.roster.with_key(&key).iter().copied().find(|at| {
            self.core.roster.get(*at).is_some_and(|peer| {
                peer.member == member.id
                    && peer.session_key == hello.session_key
                    && (hello.session_key.is_some() || peer.session_id == hello.session_id)
                    && (hello.proven || !peer.proven)
            })
        })
    }

    /// The session that a plain hello of before acts for: each verb at the shell of a session says the session's id, under a key of
    /// its own. It must not take the session's place, nor stay behind as one.
    pub(super) fn session_of_verb(&self, hello: &VerifiedHello, member: &Member) -> Option<PeerHandle> {
        if hello.proven || !says_nothing(hello) {
            return None;
        }
        let key = hello.session_key.unwrap_or(hello.member_key);
        let session_id = cut(&hello.session_id);
        self.core.roster.of_member(&member.id).iter().copied().find(|at| {
            let peer = self.core.roster.get(*at);
            peer.is_some_and(|peer| peer.online() && peer.session_id == session_id && peer.key() != key)
        })
    }

    /// What a plain hello of before gets back under a new session key: the state of the session of its member that was seen last
    /// and is gone. Each start of such a client is a new session, so no one else could give it its groups back, or keep it hidden.
    pub(super) fn member_state(&self, hello: &VerifiedHello, member: &Member) -> Option<KnownSession> {
        if hello.proven || !says_nothing(hello) {
            return None;
        }
        let roster = &self.core.roster;
        let here = |key: &PublicKey| roster.with_key(key).iter().any(|at| roster.get(*at).is_some_and(Peer::online));
        let gone = roster.known.iter().filter(|(key, known)| known.member == member.id && !here(key));
        gone.max_by_key(|(key, known)| (known.last_seen_ms, **key)).map(|(_, known)| known.clone())
    }

    /// Another record of the same member with the same session id is the same session under an older key.
    pub(super) fn replace_same_session(&mut self, hello: &VerifiedHello, member: &Member, ctx: &mut Context<Self>) {
        let old: Vec<PeerHandle> = self
            .core
            .roster
            .of_member(&member.id)
            .iter()
            .copied()
            .filter(|at| {
                self.core
                    .roster
                    .get(*at)
                    .is_some_and(|peer| peer.session_id == hello.session_id && (hello.proven || !peer.proven))
            })
            .collect();
        for at in old {
            MeshContext::new(&mut self.core, None).close(at, CloseReason::SessionReplaced);
            self.evict(at, false, ctx);
        }
    }
}
