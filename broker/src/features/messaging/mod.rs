//! Messages: targets, the journal's view of a mesh, acknowledgements, receipts.

#[cfg(test)]
mod abuse_tests;
pub mod journaling;
mod letters;
mod metrics;
mod quota;
mod receipts;
pub mod recent_messages;
pub mod schema;
mod send;
mod sent;
pub mod state;
pub mod store;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{
    ClientAck, Echo, EchoResult, InboxPull, MessageStatus, Request, ResolveTarget, ResolveTargetResult, Send,
};
use claudemesh_protocol::limits;
use claudemesh_protocol::session::{HelloAck, Waiting};
use claudemesh_protocol::time::iso;

pub use recent_messages::DedupEntry;
pub use state::{Counts, MessagingMemory};

use crate::db::MeshDb;
use crate::db::{Db, DbError};
use crate::journal::Batch;
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::PeerHandle;
use crate::mesh::resolve::resolve_name;
use crate::refusal::Refusal;

/// The feature.
pub struct Messaging;

/// Retries recognised after a restart.
const RECENT_REPEATABLE: u32 = 20_000;

impl Feature for Messaging {
    const NAME: &'static str = "messaging";
    type Request = Request;
    type Memory = MessagingMemory;

    fn register_metrics() {
        LazyLock::force(&metrics::METRICS);
    }

    async fn load(storage: &MeshDb) -> Result<MessagingMemory, DbError> {
        let waiting = store::pending_counts(storage).await?;
        Ok(MessagingMemory::new(
            store::max_seq(storage).await?,
            waiting.into_iter().map(|(key, found)| (key, found.counts)).collect(),
            store::pending_copies(storage).await?,
            store::recent_repeatable(storage, RECENT_REPEATABLE).await?,
        ))
    }

    fn started(_: &mut MessagingMemory, cx: &mut MeshContext<'_>) {
        cx.wake_at(journaling::EXPIRY, cx.mono_ms());
    }

    fn handle(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::Send(send) => Self::answer::<Send>(send::send(memory, cx, send)),
            Request::ClientAck(ack) => Self::answer::<ClientAck>(receipts::client_ack(memory, cx, ack)),
            Request::MessageStatus(query) => {
                Self::answer::<MessageStatus>(receipts::message_status(memory, cx, &query))
            }
            Request::InboxPull(pull) => Self::answer::<InboxPull>(journaling::pull(memory, cx, pull.limit)),
            Request::ResolveTarget(query) => Self::answer::<ResolveTarget>(resolve_target(cx, &query)),
            Request::Echo(request) => Self::answer::<Echo>(echo(memory, cx, request)),
        }
    }

    fn on_event(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            MeshEvent::Attached { peer, .. } => {
                if cx.roster().get(*peer).is_some_and(|peer| !peer.ephemeral) {
                    journaling::attached(memory, cx, *peer);
                }
            }
            MeshEvent::BecameIdle { peer } => journaling::became_idle(memory, cx, *peer),
            MeshEvent::Detached { peer } => {
                if let Some(member) = cx.roster().get(*peer).map(|peer| peer.member.clone()) {
                    journaling::left_behind(memory, cx, &member);
                }
            }
            MeshEvent::Ended { peer, record, .. } => {
                memory.forget(*peer);
                if !record.ephemeral {
                    journaling::left_behind(memory, cx, &record.member);
                }
            }
            MeshEvent::Letter(letter) => letters::deliver(memory, cx, letter),
            MeshEvent::Tick => {
                journaling::tick(memory, cx);
                sent::tick(memory, cx, false);
            }
            MeshEvent::Stopping => sent::tick(memory, cx, true),
            MeshEvent::Answered { .. }
            | MeshEvent::MemberGone { .. }
            | MeshEvent::SimulatedTime { .. }
            | MeshEvent::TopicPosted { .. }
            | MeshEvent::KeyEnded { .. }
            | MeshEvent::TopicStored { .. }
            | MeshEvent::Host(_) => {}
        }
    }

    fn on_wake(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, _: &str) {
        journaling::expire(memory, cx);
    }

    fn collect(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, wanted: FlushWanted, batch: &mut Batch) {
        journaling::collect(memory, cx, wanted, batch);
    }

    fn committed(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, result: &Result<(), Refusal>) {
        journaling::committed(memory, cx, result);
    }

    fn is_settled(memory: &MessagingMemory, _: &MeshContext<'_>) -> bool {
        journaling::is_settled(memory)
    }

    fn greet(memory: &MessagingMemory, cx: &MeshContext<'_>, peer: PeerHandle, ack: &mut HelloAck) {
        ack.waiting = Some(waiting(journaling::waiting_for(memory, cx.roster(), peer)));
    }

    async fn upkeep(db: &Db, now_ms: i64) -> Result<usize, DbError> {
        Ok(store::expire(db, now_ms).await? + store::purge(db, now_ms).await?)
    }
}

fn resolve_target(cx: &MeshContext<'_>, query: &ResolveTarget) -> Result<Outcome<ResolveTargetResult>, Refusal> {
    let own = cx.asker()?.handle;
    let resolved = resolve_name(cx.roster(), &query.target, Some(own))?;
    Ok(Outcome::Answer(ResolveTargetResult { resolved: resolved.candidate(cx.roster()) }))
}

fn echo(memory: &MessagingMemory, cx: &MeshContext<'_>, echo: Echo) -> Result<Outcome<EchoResult>, Refusal> {
    if echo.payload.as_ref().is_some_and(|payload| payload.len() > limits::MAX_ID_CHARS) {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "expected a payload of at most 128 characters"));
    }
    let peer = cx.peer()?;
    Ok(Outcome::Answer(EchoResult {
        payload: echo.payload,
        broker_time: iso(cx.now_ms()),
        mesh: cx.mesh_id().clone(),
        status: peer.status,
        waiting: waiting(journaling::waiting_for(memory, cx.roster(), peer.handle)),
    }))
}

fn waiting([now, next, low]: Counts) -> Waiting {
    Waiting { now, next, low }
}
