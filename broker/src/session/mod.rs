//! One connected socket: decoding, the handshake, limits, and what leaves for the peer.

mod actor;
pub mod bucket;
pub mod frames;
pub mod hello;
pub mod queue;
pub mod socket;

use actix::Message;

pub use actor::{PeerSession, SessionDeps};

/// What a mesh hands to a socket.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "()")]
pub enum Out {
    /// Frames lie in the session's [`queue::SendQueue`]; said when the first of them came.
    Ready,
    /// Close with a reason, after what was handed over before.
    Close(CloseReason),
}

/// Why a socket is closed by us: code and text of the close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The same session connected again.
    SessionReplaced,
    /// `disconnect`.
    Disconnected,
    /// `disconnect` with `stale`.
    DisconnectedStale,
    /// `kick`.
    Kicked,
    /// `kick` with `stale`.
    KickedStale,
    /// `ban`, or a hello of a banned member.
    Banned,
    /// The member was removed, or has left.
    Removed,
    /// A refused hello, with the code as text.
    Refused(&'static str),
    /// The broker drains.
    ShuttingDown,
    /// Too many bad frames.
    Abusive,
    /// A frame over the limit.
    TooLarge,
    /// The mesh was archived.
    Archived,
    /// The mesh was deleted.
    Deleted,
    /// The mesh failed and is being rebuilt: connect again.
    Restarting,
    /// It asked for more than it reads.
    SlowReader,
}

impl CloseReason {
    /// Close code and text.
    pub fn parts(self) -> (u16, &'static str) {
        match self {
            Self::SessionReplaced => (1000, "session_replaced"),
            Self::Disconnected => (1000, "disconnected"),
            Self::DisconnectedStale => (1000, "disconnected_stale"),
            Self::Kicked => (4001, "kicked"),
            Self::KickedStale => (4001, "kicked_stale"),
            Self::Banned => (4002, "banned"),
            Self::Removed => (4002, "removed"),
            Self::Refused(code) => (1008, code),
            Self::ShuttingDown => (1001, "shutting down"),
            Self::Abusive => (1008, "too_many_bad_frames"),
            Self::TooLarge => (1009, "frame too large"),
            Self::Archived => (1008, "mesh_archived"),
            Self::Deleted => (1008, "mesh_deleted"),
            Self::Restarting => (1012, "restarting"),
            Self::SlowReader => (1013, "answers are not read"),
        }
    }
}
