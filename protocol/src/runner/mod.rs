//! What the broker and `claudemesh-runner` say to each other over the standard streams of a mesh's container.
//!
//! Frames ([`frame`]) carry messages and streams. A *message* stands alone ([`ToRunner`], [`FromRunner`]). A *stream* is one exchange: who
//! asks opens it with a head and a body, the other side answers with a head and a body, and either may go on with more bytes of its body as long
//! as the other one lets it ([`window`]). So a result of 50 MB does not stand in the way of other calls.
//!
//! | Stream | Opened by | Head, body | Answer, body |
//! |---|---|---|---|
//! | install, start, stop, remove | broker | [`Ask`], for a zip bundle its bytes | [`Answer::Done`] or [`Answer::Failed`] |
//! | request to an MCP server | broker | [`Ask::Request`], `params` as JSON text or nothing | [`Answer::Result`], [`Answer::Error`] or [`Answer::Failed`] |
//! | log, numbers | broker | [`Ask::Logs`], [`Ask::Stats`] | [`Answer::Logs`] and lines of JSON, [`Answer::Stats`] |
//! | request of an MCP server | runner | [`RunnerAsk::Request`], `params` | [`BrokerAnswer::Result`], [`BrokerAnswer::Error`] |
//! | way out | runner | [`RunnerAsk::Egress`], bytes to the host | [`BrokerAnswer::Opened`] and bytes from the host, [`BrokerAnswer::Refused`] |
//!
//! Either side ends a stream before its time with a reset ([`Reset`]); a request that is reset by the broker is cancelled at the MCP server.
//!
//! # Beginning
//!
//! The broker attaches to the container and writes [`limits::MAX_FRAME_BYTES`] zero bytes, which end whatever frame an earlier broker
//! had begun, then [`ToRunner::Attach`] with a new random [`frame::Session`]. The runner forgets all streams of before and answers
//! [`FromRunner::Hello`]; services go on. From then on every frame carries a mark of that session, so what was written
//! before, or stands in the output of a program, is no frame. A runner of another [`VERSION`] is replaced, not spoken to.

mod failure;
pub mod frame;
pub mod limits;
mod message;
pub mod sealing;
mod spec;
pub mod window;

pub use failure::{FailCode, Failure, Reset};
pub use message::{
    Answer, Ask, BrokerAnswer, Change, Event, FromRunner, Hello, Note, Phase, RefusedWhy, RunnerAsk, ServiceState,
    Stats, Status, ToRunner,
};
pub use spec::{ClientSide, EnvVar, Limits, Registries, Runtime, SecretFile, ServiceSpec, Source, SpecError, Text};

/// The version of this wire. Fields and variants that are added do not change it; whatever an older side would misread does.
pub const VERSION: u32 = 1;
