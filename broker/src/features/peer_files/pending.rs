//! Requests that wait for the peer that was asked, and who shares a folder.

use std::collections::BTreeMap;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MemberId;

use crate::mesh::context::MeshContext;
use crate::mesh::outcome::ReplyTo;
use crate::mesh::peers::{Peer, PeerHandle};
use crate::refusal::Refusal;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    List,
}

impl Kind {
    /// The word in the audit log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::List => "list",
        }
    }
}

/// One socket of a peer: what is asked of it is not answered by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) at: PeerHandle,
    pub(super) number: u64,
}

impl Socket {
    pub(super) fn of(peer: &Peer) -> Self {
        Self { at: peer.handle, number: peer.socket_no }
    }
}

/// A request that was passed on.
pub(super) struct Pending {
    pub(super) kind: Kind,
    /// Who asked.
    pub(super) asker: PeerHandle,
    pub(super) member: MemberId,
    /// How its answers name who asked.
    pub(super) asker_key: String,
    /// Whose folder it is, and the one socket that may answer.
    pub(super) host: Socket,
    pub(super) host_member: MemberId,
    pub(super) host_name: String,
    /// As asked; empty when it is sealed.
    pub(super) path: String,
    pub(super) sealed: bool,
    pub(super) reply: ReplyTo,
    pub(super) due_mono_ms: i64,
}

/// How an answer says what it answers.
pub(super) struct Named<'a> {
    pub(super) kind: Kind,
    /// The id that newer clients copy, or the `_reqId` of older ones.
    pub(super) id: Option<&'a str>,
    pub(super) asker_key: &'a str,
    pub(super) path: &'a str,
}

/// What a mesh in memory knows.
#[derive(Default)]
pub struct PeerFilesMemory {
    /// By number, so the oldest comes first; each with the id that its answer must name.
    pending: BTreeMap<u64, (String, Pending)>,
    next: u64,
    /// Connections that share a folder.
    sharing: BTreeMap<PeerHandle, u64>,
}

impl PeerFilesMemory {
    pub(super) fn share(&mut self, peer: Socket, shared: bool) {
        if shared {
            self.sharing.insert(peer.at, peer.number);
        } else {
            self.sharing.remove(&peer.at);
        }
    }

    pub(super) fn shares(&self, peer: &Peer) -> bool {
        self.sharing.get(&peer.handle) == Some(&peer.socket_no)
    }

    pub(super) fn open(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn open_of(&self, asker: PeerHandle) -> usize {
        self.pending.values().filter(|(_, one)| one.asker == asker).count()
    }

    pub(super) fn open_at(&self, host: PeerHandle) -> usize {
        self.pending.values().filter(|(_, one)| one.host.at == host).count()
    }

    /// Keeps a request until it is answered, and sets the time at which it is given up.
    pub(super) fn add(&mut self, cx: &mut MeshContext<'_>, id: String, one: Pending) {
        self.pending.insert(self.next, (id, one));
        self.next += 1;
        self.arm(cx);
    }

    fn arm(&self, cx: &mut MeshContext<'_>) {
        if let Some(due) = self.pending.values().map(|(_, one)| one.due_mono_ms).min() {
            cx.wake_at("due", due);
        }
    }

    /// Takes the request that an answer of this socket is for. The oldest one for that path, when an older client names no id.
    pub(super) fn take(&mut self, host: Socket, named: &Named<'_>) -> Option<Pending> {
        let its_own = |one: &Pending| one.host == host && one.kind == named.kind;
        let by_id = |(id, one): &(String, Pending)| its_own(one) && named.id == Some(id);
        let by_path = |(_, one): &(String, Pending)| {
            its_own(one) && !one.sealed && one.asker_key == named.asker_key && one.path == named.path
        };
        let of = |fits: &dyn Fn(&(String, Pending)) -> bool| {
            self.pending.iter().find(|(_, one)| fits(one)).map(|(number, _)| *number)
        };
        let number = of(&by_id).or_else(|| of(&by_path))?;
        self.pending.remove(&number).map(|(_, one)| one)
    }

    /// Gives up what has waited too long.
    pub(super) fn expire(&mut self, cx: &mut MeshContext<'_>) {
        let now = cx.mono_ms();
        let late = self.drain(|one| one.due_mono_ms <= now);
        for one in late {
            cx.refuse(&one.reply, Refusal::new(ErrorCode::Timeout, "the peer has not answered in time"));
        }
        self.arm(cx);
    }

    /// A socket is gone: what it asked is wanted by no one, and what it was asked comes to nothing.
    pub(super) fn gone(&mut self, cx: &mut MeshContext<'_>, peer: PeerHandle) {
        self.sharing.remove(&peer);
        drop(self.drain(|one| one.asker == peer));
        for one in self.drain(|one| one.host.at == peer) {
            cx.refuse(&one.reply, Refusal::new(ErrorCode::PeerNotFound, "the peer went away before it answered"));
        }
    }

    fn drain(&mut self, wanted: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let numbers: Vec<u64> =
            self.pending.iter().filter(|(_, (_, one))| wanted(one)).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| self.pending.remove(&number)).map(|(_, one)| one).collect()
    }
}
