//! A recipient has a message: its row, or that it needs none, and the answer to the sender.

use claudemesh_protocol::features::messaging::{Priority, Stage};
use claudemesh_protocol::id::PublicKey;

use super::super::receipts;
use super::super::send::answer_all;
use super::super::state::{Journaled, MessagingMemory};
use super::super::store::types::StageUpdate;
use crate::features::messaging::metrics::METRICS;
use crate::mesh::context::{FlushWanted, MeshContext};

/// Receipts that make a batch of their own; fewer wait for company until the next tick.
const MANY_STAGES: usize = 2_048;

/// A recipient acknowledged. Settles the message when it was the last one.
pub(in crate::features::messaging) fn received(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    entry: &Acknowledged,
) {
    let now = cx.now_ms();
    memory.count_delivered(&entry.key, entry.copy, entry.priority);
    let mut unwritten = false;
    if let Some(open) = memory.open.get_mut(&entry.seq) {
        let slot = entry.slot.filter(|slot| open.recipients.get(*slot).is_some_and(|one| one.key == entry.key));
        let slot = slot.or_else(|| open.recipients.iter().position(|one| one.key == entry.key));
        if let Some(recipient) = slot.and_then(|slot| open.recipients.get_mut(slot))
            && !recipient.received
        {
            recipient.received = true;
            open.remaining -= 1;
            unwritten = open.journaled == Journaled::Pending && !open.durable;
        }
    }
    if unwritten {
        memory.pending_rows = memory.pending_rows.saturating_sub(1);
        METRICS.unwritten.inc();
    } else {
        memory.stages.push(StageUpdate {
            mesh_id: cx.mesh_id().clone(),
            seq: entry.seq,
            recipient_key: entry.key,
            stage: Stage::Received,
            at_ms: now,
            route: None,
        });
        if memory.stages.len() >= MANY_STAGES {
            cx.flush(FlushWanted::Soon);
        }
    }
    receipts::climb(memory, entry.seq, &entry.key, entry.slot, Stage::Received, None, now);
    settle_received(memory, cx, entry.seq);
}

/// One acknowledged delivery.
pub(in crate::features::messaging) struct Acknowledged {
    /// Order.
    pub seq: i64,
    /// Recipient key.
    pub key: PublicKey,
    /// Whether it is a session's copy of a message to its member.
    pub copy: bool,
    /// Place among the recipients.
    pub slot: Option<usize>,
    /// Urgency.
    pub priority: Priority,
}

/// Answers the sender when every recipient has acknowledged; a message that needs no row is done then.
pub(in crate::features::messaging) fn settle_received(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    seq: i64,
) {
    let Some(open) = memory.open.get_mut(&seq) else { return };
    if open.remaining > 0 || open.durable {
        return;
    }
    let unwritten = open.journaled == Journaled::Pending;
    let (reply, bytes) = (open.reply.take(), open.message.ciphertext.len() + open.message.nonce.len());
    if let (Some(reply), Some(open)) = (reply, memory.open.get(&seq)) {
        answer_all(memory, cx, open, &reply);
    }
    if unwritten {
        memory.open.remove(&seq);
        memory.dequeue(bytes, 1);
    }
}
