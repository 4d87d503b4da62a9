//! What happens in a mesh that more than one feature cares about.

use claudemesh_protocol::id::{MemberId, PublicKey};

use super::peers::PeerRef;

/// An event inside one mesh. Delivered to every feature after the frame that caused it.
#[derive(Clone, Debug, PartialEq)]
pub enum MeshEvent {
    /// A peer said hello; `reattached` when it took over its own record.
    Attached {
        /// Who.
        peer: PeerRef,
        /// Its record existed.
        reattached: bool,
    },
    /// A socket closed; the record stays for the lease.
    Detached {
        /// Who.
        peer: PeerRef,
    },
    /// A record was removed.
    Evicted {
        /// Its key.
        key: PublicKey,
        /// Its member.
        member: MemberId,
    },
    /// A peer became idle: what its status held back may go.
    BecameIdle {
        /// Who.
        peer: PeerRef,
    },
    /// A message was answered (`replyToId`).
    Answered {
        /// Id of the answered message.
        message: String,
        /// Who answered.
        by: PublicKey,
    },
    /// The last record of a member is gone, or the member was banned.
    MemberGone {
        /// Who.
        member: MemberId,
    },
}
