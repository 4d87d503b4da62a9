//! What a handler decides: an answer, nothing, or slow work that comes back to the actor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use claudemesh_protocol::message::ServerMessage;

use super::context::MeshContext;
use super::dispatch::{Feature, Features};
use super::peers::PeerRef;
use crate::refusal::Refusal;

/// Whom an answer goes to, kept by work that answers later.
#[derive(Clone, Debug)]
pub struct ReplyTo {
    /// The asking peer.
    pub peer: PeerRef,
    /// Its socket at that time: an answer never goes to a later socket.
    pub socket_no: u64,
    /// `_reqId`.
    pub req_id: Option<Arc<str>>,
    /// `id`.
    pub id: Option<Arc<str>>,
}

/// Work of the same lane finishes in the order it was admitted; other lanes run beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane(pub &'static str, pub String);

/// What comes back from work: a step in the actor.
pub type Apply = Box<dyn FnOnce(&mut Features, &mut MeshContext<'_>) -> Result<Outcome, Refusal> + Send>;

/// Slow work: owns its data, runs outside the actor.
pub struct Work {
    /// Order.
    pub lane: Lane,
    /// The slow part.
    pub future: Pin<Box<dyn Future<Output = Result<Apply, Refusal>> + Send>>,
    /// Who waits for the answer; `None` for the mesh's own work.
    pub reply_to: Option<ReplyTo>,
}

/// A handler's decision.
pub enum Outcome {
    /// Answer now.
    Answer(Box<ServerMessage>),
    /// No answer: fire and forget, or answered by another way later.
    Silent,
    /// Answer after slow work.
    Work(Work),
}

impl Outcome {
    /// Answer now.
    pub fn answer(message: impl Into<ServerMessage>) -> Self {
        Self::Answer(Box::new(message.into()))
    }

    /// Slow work of a feature: `future` gives the step that is run back in the actor, in lane order.
    pub fn work<F, Fut, Done>(lane: Lane, future: Fut) -> Self
    where
        F: Feature,
        Fut: Future<Output = Result<Done, Refusal>> + Send + 'static,
        Done: FnOnce(&mut F::Memory, &mut MeshContext<'_>) -> Result<Self, Refusal> + Send + 'static,
    {
        Self::Work(Work { lane, future: boxed::<F, Fut, Done>(future), reply_to: None })
    }
}

/// Boxes a feature's work so that lanes can hold it.
pub fn boxed<F, Fut, Done>(future: Fut) -> Pin<Box<dyn Future<Output = Result<Apply, Refusal>> + Send>>
where
    F: Feature,
    Fut: Future<Output = Result<Done, Refusal>> + Send + 'static,
    Done: FnOnce(&mut F::Memory, &mut MeshContext<'_>) -> Result<Outcome, Refusal> + Send + 'static,
{
    Box::pin(async move {
        let done = future.await?;
        let apply: Apply = Box::new(move |features, cx| done(F::memory(features), cx));
        Ok(apply)
    })
}
