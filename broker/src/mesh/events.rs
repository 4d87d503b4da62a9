//! What happens in a mesh that more than one feature cares about.

use std::sync::Arc;

use claudemesh_protocol::id::{MemberId, PublicKey};

use super::hosting::Report;
use super::letter::Letter;
use super::message::NewMessage;
use super::peers::{KnownSession, Peer, PeerHandle};

/// An event inside one mesh. Delivered to every feature after the step that caused it.
pub enum MeshEvent {
    /// A peer said hello, and has its `hello_ack`. One-shot verbs are told as well, see [`Peer::ephemeral`].
    Attached {
        /// The record.
        peer: PeerHandle,
        /// It took over its own record.
        reattached: bool,
        /// What was remembered of its session before this hello.
        known: Option<Box<KnownSession>>,
    },
    /// A socket closed; the record stays for the lease.
    Detached {
        /// The record.
        peer: PeerHandle,
    },
    /// A record was removed. Told of every record, one-shot verbs included: what a feature keeps for the handle goes now.
    Ended {
        /// The handle, which is never used again.
        peer: PeerHandle,
        /// The record as it was.
        record: Box<Peer>,
        /// Whether the others are to learn of it.
        announce: bool,
    },
    /// A peer became idle: what its status held back may go.
    BecameIdle {
        /// The record.
        peer: PeerHandle,
    },
    /// A message was answered (`replyToId`).
    Answered {
        /// Id of the answered message.
        message: String,
        /// Key of the session that answered.
        by: PublicKey,
    },
    /// A message was written to a topic; it goes to the journal with what is collected next.
    TopicPosted {
        /// The message.
        message: Arc<NewMessage>,
        /// Names that its sender mentions.
        mentions: Vec<String>,
    },
    /// A message of a topic is on stable storage. Told in the order of the mesh.
    TopicStored {
        /// The message.
        message: Arc<NewMessage>,
    },
    /// An API key was revoked.
    KeyEnded {
        /// Its id.
        id: String,
    },
    /// A member was banned.
    MemberGone {
        /// The member.
        member: MemberId,
    },
    /// A feature wrote a message; see [`super::context::MeshContext::deliver`].
    Letter(Box<Letter>),
    /// The mesh's own clock shows another time, or was paused or resumed. Told once when the mesh is loaded, then with each change.
    SimulatedTime {
        /// Unix milliseconds; `None`: there is no such clock.
        sim_ms: Option<i64>,
    },
    /// The host of services tells something.
    Host(Box<Report>),
    /// The mesh ends after this: what a feature has still to write, it admits as work now.
    Stopping,
    /// Once a second.
    Tick,
}
