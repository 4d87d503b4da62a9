//! What a handler decides: an answer, nothing, or slow work that comes back to the actor.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use claudemesh_protocol::call::ServerBody;
use claudemesh_protocol::message::ServerMessage;

use super::context::MeshContext;
use super::dispatch::{Feature, Features, MemoryOf};
pub use super::principal::ReplyTo;
use crate::refusal::Refusal;

/// Work of the same lane finishes in the order it was admitted; other lanes run beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Name of the feature.
    pub feature: &'static str,
    /// The smallest thing that must be ordered.
    pub key: String,
}

impl Lane {
    /// A lane of a feature.
    pub fn of<F: Feature>(key: impl fmt::Display) -> Self {
        Self { feature: F::NAME, key: key.to_string() }
    }

    /// A lane of the mesh itself.
    pub(super) fn of_mesh(key: &str) -> Self {
        Self { feature: "mesh", key: key.into() }
    }
}

/// What comes back from work: a step in the actor.
pub type Apply = Box<dyn FnOnce(&mut Features, &mut MeshContext<'_>) -> Result<Outcome, Refusal> + Send>;

/// The step for work that gave nothing to apply: it failed, took too long, or panicked.
pub type Failed = Box<dyn FnOnce(&mut Features, &mut MeshContext<'_>, Refusal) -> Result<Outcome, Refusal> + Send>;

/// The slow part of work.
pub type Slow = Pin<Box<dyn Future<Output = Result<Apply, Refusal>> + Send>>;

/// Slow work: owns its data, runs outside the actor.
pub struct Work {
    /// Order.
    pub lane: Lane,
    /// The slow part.
    pub future: Slow,
    /// What the mesh does when it gives nothing to apply; `None`: only the caller is told.
    pub on_failure: Option<Failed>,
    /// Who waits for the answer; `None` for the mesh's own work.
    pub reply_to: Option<ReplyTo>,
    /// `type` of the request that it is for, in logs.
    pub tag: &'static str,
}

impl Work {
    /// Work that no one waits for.
    pub fn new(lane: Lane, future: Slow) -> Self {
        Self { lane, future, on_failure: None, reply_to: None, tag: "" }
    }
}

/// A handler's decision. Handlers name the answer's type; the mesh passes on any.
pub enum Outcome<A = Box<ServerMessage>> {
    /// Answer now.
    Answer(A),
    /// No answer: fire and forget, or answered by another way later.
    Silent,
    /// Answer after slow work.
    Work(Work),
    /// Answer after a step that sees the memory of every feature.
    Overview(Apply),
}

impl<A: ServerBody> Outcome<A> {
    /// As the mesh passes it on.
    pub fn erase(self) -> Outcome {
        match self {
            Self::Answer(answer) => Outcome::Answer(Box::new(answer.into_message())),
            Self::Silent => Outcome::Silent,
            Self::Work(work) => Outcome::Work(work),
            Self::Overview(step) => Outcome::Overview(step),
        }
    }
}

impl Outcome {
    /// The same without an answer: of a request that is answered only when it asks for it. Refusals are told all the same.
    pub fn silence(self) -> Self {
        match self {
            Self::Answer(_) | Self::Silent => Self::Silent,
            Self::Overview(step) => Self::Overview(Box::new(move |features, cx| step(features, cx).map(Self::silence))),
            Self::Work(Work { future, lane, on_failure, reply_to, tag }) => {
                let on_failure = on_failure.map(|failed| -> Failed {
                    Box::new(move |features, cx, refusal| failed(features, cx, refusal).map(Self::silence))
                });
                let future = Box::pin(async move {
                    let apply = future.await?;
                    let silent: Apply = Box::new(move |features, cx| apply(features, cx).map(Self::silence));
                    Ok(silent)
                });
                Self::Work(Work { future, lane, on_failure, reply_to, tag })
            }
        }
    }
}

/// Boxes a feature's work so that lanes can hold it: `future` gives the step that is run back in the actor, in lane order.
pub fn boxed<F, Fut, Done>(future: Fut) -> Slow
where
    F: Feature,
    Fut: Future<Output = Result<Done, Refusal>> + Send + 'static,
    Done: FnOnce(&mut F::Memory, &mut MeshContext<'_>) -> Result<Outcome, Refusal> + Send + 'static,
    Features: MemoryOf<F>,
{
    Box::pin(async move {
        let done = future.await?;
        let apply: Apply = Box::new(move |features, cx| {
            cx.enter(F::NAME);
            done(MemoryOf::<F>::memory(features), cx)
        });
        Ok(apply)
    })
}
