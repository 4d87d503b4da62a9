//! What a handler decides: an answer, nothing, or slow work that comes back to the actor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use claudemesh_protocol::error::{Bound, ErrorCode, ErrorFrame};
use claudemesh_protocol::features::messaging::Candidate;
use claudemesh_protocol::message::ServerMessage;

use super::context::MeshContext;
use super::dispatch::{Feature, Features};
use super::peers::PeerRef;
use crate::db::DbError;

/// Why a request is refused. Becomes one `error` frame with the request's ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Reject {
    /// Stable code.
    pub code: ErrorCode,
    /// For people; never SQL, paths or secrets.
    pub message: String,
    /// Milliseconds after which the same request may pass.
    pub retry_after_ms: Option<u64>,
    /// With `ambiguous_target`.
    pub candidates: Vec<Candidate>,
    /// With `conflict`: what is there now.
    pub current: Option<serde_json::Value>,
    /// With `limit`: which bound was hit.
    pub bound: Option<Bound>,
}

impl Reject {
    /// A refusal with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, candidates: vec![], current: None, bound: None }
    }

    /// A refusal that ends after a while.
    pub fn wait(code: ErrorCode, message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(code, message) }
    }

    /// The frame.
    pub fn into_frame(self, id: Option<&str>) -> ErrorFrame {
        ErrorFrame {
            code: self.code.as_str().into(),
            message: self.message,
            id: id.map(str::to_owned),
            retry_after_ms: self.retry_after_ms,
            candidates: self.candidates,
            current: self.current,
            bound: self.bound,
        }
    }
}

impl From<DbError> for Reject {
    fn from(error: DbError) -> Self {
        // The cause stays in our log; the peer learns what it can do about it.
        tracing::error!(error = %error, "storage failed");
        let code = error.code();
        Self::new(code, code.doc())
    }
}

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
    /// `confirm:true`.
    pub confirm: bool,
}

/// Work of the same lane finishes in the order it was admitted; other lanes run beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane(pub &'static str, pub String);

/// What comes back from work: a step in the actor.
pub type Apply = Box<dyn FnOnce(&mut Features, &mut MeshContext<'_>) -> Result<Outcome, Reject> + Send>;

/// Slow work: owns its data, runs outside the actor.
pub struct Work {
    /// Order.
    pub lane: Lane,
    /// The slow part.
    pub future: Pin<Box<dyn Future<Output = Result<Apply, Reject>> + Send>>,
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
        Fut: Future<Output = Result<Done, Reject>> + Send + 'static,
        Done: FnOnce(&mut F::Memory, &mut MeshContext<'_>) -> Result<Self, Reject> + Send + 'static,
    {
        Self::Work(Work { lane, future: boxed::<F, Fut, Done>(future), reply_to: None })
    }
}

/// Boxes a feature's work so that lanes can hold it.
pub fn boxed<F, Fut, Done>(future: Fut) -> Pin<Box<dyn Future<Output = Result<Apply, Reject>> + Send>>
where
    F: Feature,
    Fut: Future<Output = Result<Done, Reject>> + Send + 'static,
    Done: FnOnce(&mut F::Memory, &mut MeshContext<'_>) -> Result<Outcome, Reject> + Send + 'static,
{
    Box::pin(async move {
        let done = future.await?;
        let apply: Apply = Box::new(move |features, cx| done(F::memory(features), cx));
        Ok(apply)
    })
}
