//! Who asks, and how the answer gets there.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::message::ServerMessage;
use tokio::sync::oneshot;

use super::peers::PeerHandle;
use crate::refusal::Refusal;

/// On whose behalf a request runs. Every kind is held to the same capabilities and quotas and stands in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A connection, and the member it belongs to.
    Peer(PeerHandle),
    /// A member without a connection: it signed an HTTP request.
    Member(MemberId),
    /// An API key, by its id: a program that acts for the member of the key, with what the key lets it do.
    Key(Arc<str>),
}

/// Names the lane of what one principal asks, in its order.
impl fmt::Display for Principal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => write!(out, "of {}", peer.0),
            Self::Member(member) => write!(out, "of member {member}"),
            Self::Key(id) => write!(out, "of key {id}"),
        }
    }
}

/// What comes of a request.
pub type Answer = Result<ServerMessage, Refusal>;

/// A principal without a socket that waits for its answer.
#[derive(Debug)]
pub struct Waiting {
    from: Principal,
    answer: Mutex<Option<oneshot::Sender<Answer>>>,
}

impl Waiting {
    /// One that waits, and where the answer will be. The receiver fails when the request is dropped without an answer.
    pub fn new(from: Principal) -> (Arc<Self>, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Self { from, answer: Mutex::new(Some(sender)) }), receiver)
    }

    /// Gives the answer; a second one is dropped.
    pub fn answer(&self, answer: Answer) {
        if let Some(sender) = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may have given up.
            let _ = sender.send(answer);
        }
    }
}

/// The asking principal and its request's ids.
#[derive(Clone, Debug)]
pub struct Caller {
    /// On whose behalf.
    pub from: Principal,
    /// Set when there is no socket to answer to.
    pub waiting: Option<Arc<Waiting>>,
    /// `_reqId`.
    pub req_id: Option<Arc<str>>,
    /// `id`.
    pub id: Option<Arc<str>>,
    /// `confirm:true`: a silent request is answered with `done`.
    pub confirm: bool,
    /// `type` of the request.
    pub tag: &'static str,
}

impl Caller {
    /// One that waits: everything it asks is answered.
    pub fn waiting(from: Principal, waiting: Arc<Waiting>, tag: &'static str) -> Self {
        Self { from, waiting: Some(waiting), req_id: None, id: None, confirm: true, tag }
    }
}

/// The way back.
#[derive(Clone, Debug)]
pub enum Way {
    /// Over a socket.
    Socket {
        /// The asking peer.
        peer: PeerHandle,
        /// Its socket at that time: an answer never goes to a later socket.
        socket_no: u64,
    },
    /// To someone who waits without one.
    Waiting(Arc<Waiting>),
}

/// The recipient of an answer, kept by work that answers later.
#[derive(Clone, Debug)]
pub struct ReplyTo {
    /// The way back.
    pub way: Way,
    /// `_reqId`.
    pub req_id: Option<Arc<str>>,
    /// `id`.
    pub id: Option<Arc<str>>,
    /// `confirm:true`.
    pub confirm: bool,
}

impl ReplyTo {
    /// Who asked.
    pub fn caller(&self, tag: &'static str) -> Caller {
        let (from, waiting) = match &self.way {
            Way::Socket { peer, .. } => (Principal::Peer(*peer), None),
            Way::Waiting(waiting) => (waiting.from.clone(), Some(Arc::clone(waiting))),
        };
        Caller { from, waiting, req_id: self.req_id.clone(), id: self.id.clone(), confirm: self.confirm, tag }
    }
}
