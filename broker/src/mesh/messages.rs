//! What the actor of a mesh is told.

use std::sync::Arc;

use actix::Message;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::presence::HookSetStatus;
use claudemesh_protocol::message::ClientMessage;

use super::context::Core;
use super::dispatch::Features;
use super::hosting::Report;
use super::peers::PeerHandle;
use super::principal::{Principal, Waiting};
use crate::session::CloseReason;
use crate::session::hello::VerifiedHello;
use crate::session::queue::PeerSender;

/// Client frames of one socket in their order: what was read in one turn travels together.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Inbound {
    /// Who.
    pub peer: PeerHandle,
    /// On which socket.
    pub socket_no: u64,
    /// At least one.
    pub frames: Vec<ClientFrame>,
}

/// A client frame.
pub struct ClientFrame {
    /// `_reqId`.
    pub req_id: Option<Arc<str>>,
    /// `id`.
    pub id: Option<Arc<str>>,
    /// `confirm:true`.
    pub confirm: bool,
    /// What.
    pub message: ClientMessage,
}

/// A request of a principal without a socket. Given back by a mesh that is going to sleep: ask the directory again.
#[derive(Message)]
#[rtype(result = "Result<(), Box<Request>>")]
pub struct Request {
    /// On whose behalf.
    pub from: Principal,
    /// What.
    pub message: ClientMessage,
    /// Where the answer goes.
    pub waiting: Arc<Waiting>,
}

/// A session with a verified hello wants in. `Err(None)`: ask the directory again.
#[derive(Message, Clone)]
#[rtype(result = "Result<PeerHandle, Option<ErrorCode>>")]
pub struct Attach {
    /// The hello.
    pub hello: VerifiedHello,
    /// `_reqId` of the hello.
    pub req_id: Option<Arc<str>>,
    /// The socket.
    pub socket: PeerSender,
    /// Its number.
    pub socket_no: u64,
    /// How the client reached the broker, `http://host`.
    pub reached_at: Option<Arc<str>>,
}

/// A socket closed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Detach {
    /// Who.
    pub peer: PeerHandle,
    /// Which socket.
    pub socket_no: u64,
}

/// A sign of life without a frame.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Heartbeat {
    /// Who.
    pub peer: PeerHandle,
    /// Which socket.
    pub socket_no: u64,
}

/// A status from a hook whose token was checked. Answers the presences that changed.
#[derive(Message)]
#[rtype(result = "Vec<String>")]
pub struct HookStatus {
    /// SHA-256 of the token.
    pub token_hash: String,
    /// What the hook says.
    pub status: HookSetStatus,
}

/// What a [`Snapshot`] runs.
pub type Look = Box<dyn FnOnce(&mut Core, &mut Features) + Send>;

/// A read for HTTP and tests: runs in the actor.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Snapshot(pub Look);

/// The host of services tells something.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Told(pub Report);

/// Members were changed in storage: read them again. Answers when they are taken over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ReloadMembers;

/// Write everything and close every socket. Answers when the journal has it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Drain(pub CloseReason);
