//! Messages: targets, the journal's view of a mesh, acknowledgements, receipts.

#[cfg(test)]
mod abuse_tests;
pub mod journaling;
mod quota;
mod receipts;
pub mod remembered;
pub mod resolve;
pub mod schema;
mod send;
pub mod state;
pub mod store;
#[cfg(test)]
mod tests;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{EchoResult, Request, ResolveTargetResult, Response};
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::session::Waiting;
use claudemesh_protocol::time::iso;

pub use remembered::Known;
pub use resolve::{Resolved, resolve_name};
pub use state::{Counts, MessagingMemory};

use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::{Feature, Features};
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::{Outcome, Reject};

/// The feature.
pub struct Messaging;

impl Feature for Messaging {
    const NAME: &'static str = "messaging";
    type Request = Request;
    type Memory = MessagingMemory;

    fn memory(features: &mut Features) -> &mut MessagingMemory {
        &mut features.messaging
    }

    fn handle(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Reject> {
        match request {
            Request::Send(send) => send::send(memory, cx, send),
            Request::ClientAck(ack) => receipts::client_ack(memory, cx, ack),
            Request::MessageStatus(query) => receipts::message_status(memory, cx, &query),
            Request::InboxPull(pull) => journaling::pull(memory, cx, pull.limit),
            Request::ResolveTarget(query) => {
                let own = cx.peer()?.at;
                let resolved = resolve_name(&cx.core.roster, &query.target, Some(own))?;
                let resolved = resolved.candidate(&cx.core.roster);
                Ok(Outcome::answer(ServerMessage::from(Response::from(ResolveTargetResult { resolved }))))
            }
            Request::Echo(echo) => {
                if echo.payload.as_ref().is_some_and(|payload| payload.len() > limits::MAX_ID_CHARS) {
                    return Err(Reject::new(ErrorCode::InvalidArgs, "expected a payload of at most 128 characters"));
                }
                let peer = cx.peer()?;
                let [now, next, low] = journaling::waiting_for(memory, &cx.core.roster, peer.at);
                let result = EchoResult {
                    payload: echo.payload,
                    broker_time: iso(cx.now_ms()),
                    mesh: cx.core.id.clone(),
                    status: peer.status,
                    waiting: Waiting { now, next, low },
                };
                Ok(Outcome::answer(ServerMessage::from(Response::from(result))))
            }
        }
    }

    fn on_event(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            MeshEvent::BecameIdle { peer } => journaling::became_idle(memory, cx, *peer),
            MeshEvent::Evicted { .. }
            | MeshEvent::Attached { .. }
            | MeshEvent::Detached { .. }
            | MeshEvent::Answered { .. }
            | MeshEvent::MemberGone { .. } => {}
        }
    }
}
