//! What the journal is handed, and what follows from it being on disk or not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Ack, Response};
use claudemesh_protocol::message::ServerMessage;

use super::super::send::answer_all;
use super::super::state::{AfterCommit, Journaled, MessagingMemory, UnsettledMessage};
use super::super::store::types::{MessagingPart, NewDelivery, RecipientKind};
use super::backlog::{look, pull_now, refill};
use crate::features::messaging::metrics::METRICS;
use crate::journal::{Batch, Part};
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::events::MeshEvent;
use crate::mesh::peers::PeerHandle;
use crate::mesh::resolve::Recipient;
use crate::refusal::Refusal;

/// Rows that one batch of a mesh hands over.
const MAX_BATCH_ROWS: usize = 8_192;

/// What one batch was about.
#[derive(Debug)]
pub struct Ticket {
    seqs: Vec<i64>,
    upto: i64,
    /// Peers that wait for exactly this batch: what they acknowledged before is in it.
    after_commit: HashMap<PeerHandle, AfterCommit>,
}

/// Takes what is pending as one batch; only what has waited long enough for its acknowledgement when nothing more was wanted.
pub fn collect(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, wanted: FlushWanted, batch: &mut Batch) {
    let expected_only = wanted <= FlushWanted::Expected && !memory.urgent;
    let ripe_upto = if expected_only { memory.ack_grace.ripe_upto() } else { i64::MAX };
    let part = batch.part::<MessagingPart>();
    let mut seqs = Vec::new();
    let mut upto = memory.next_seq - 1;
    let mut taken = (0, 0);
    while let Some(seq) = memory.pending.front().copied() {
        if seq > ripe_upto {
            upto = seq - 1;
            break;
        }
        memory.pending.pop_front();
        let Some(open) = memory.open.get_mut(&seq) else { continue };
        open.journaled = Journaled::Writing;
        taken.0 += open.message.ciphertext.len() + open.message.nonce.len();
        taken.1 += open.remaining + 1;
        part.messages.push(open.message.clone());
        for recipient in open.recipients.iter().filter(|recipient| !recipient.received) {
            // The member has the message when another of its sessions has it: this copy is for its own session only.
            let had = |other: &Recipient| other.received && other.member == recipient.member;
            let spare = recipient.copy && open.recipients.iter().any(had);
            part.deliveries.push(NewDelivery {
                mesh_id: open.message.mesh_id.clone(),
                seq,
                recipient_key: recipient.key,
                kind: if spare { RecipientKind::Session } else { recipient.kind },
                member_id: recipient.member.clone(),
                priority: open.message.priority,
                size_bytes: u32::try_from(open.frame_bytes).unwrap_or(u32::MAX),
            });
        }
        seqs.push(seq);
        if part.rows() >= MAX_BATCH_ROWS {
            upto = memory.pending.front().map_or(upto, |next| next - 1);
            break;
        }
    }
    if expected_only {
        memory.ack_grace.next_period(memory.next_seq - 1, seqs.len());
        cx.expect_within(Duration::from_millis(memory.ack_grace.period_ms));
    } else if memory.pending.is_empty() {
        memory.urgent = false;
    }
    memory.pending_live = memory.pending_live.saturating_sub(seqs.len());
    memory.pending_bytes = memory.pending_bytes.saturating_sub(taken.0);
    memory.pending_rows = memory.pending_rows.saturating_sub(taken.1);
    for seq in &seqs {
        if let Some(receipt) = memory.recent.receipt_at(*seq) {
            receipt.stored = true;
        }
    }
    part.stages = std::mem::take(&mut memory.stages);
    memory.ticket = Some(Ticket { seqs, upto, after_commit: std::mem::take(&mut memory.after_commit) });
}

/// A batch is on disk, or failed as a whole.
pub fn committed(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, result: &Result<(), Refusal>) {
    let Some(ticket) = memory.ticket.take() else { return };
    for seq in &ticket.seqs {
        let Some(mut open) = memory.open.remove(seq) else { continue };
        if result.is_ok() && open.durable {
            cx.emit(MeshEvent::TopicStored { message: Arc::clone(&open.message) });
        }
        let Some(reply) = open.reply.take() else { continue };
        match result {
            Ok(()) => answer_all(memory, cx, &open, &reply),
            Err(refusal) => {
                let ack = failed(memory, &open, refusal);
                for reply in std::iter::once(&reply).chain(&open.retries) {
                    let id = reply.id.as_deref().unwrap_or_default().to_owned();
                    cx.reply(reply, &ServerMessage::from(Response::from(Ack { id, ..ack.clone() })));
                }
            }
        }
    }
    memory.committed = memory.committed.max(ticket.upto);
    memory.doubtful |=
        matches!(result, Err(refusal) if matches!(refusal.code, ErrorCode::Unavailable | ErrorCode::Internal));
    for (at, wait) in ticket.after_commit {
        if wait.look {
            look(cx, at);
        }
        for (reply, limit) in wait.pulls {
            pull_now(memory, cx, at, limit, reply);
        }
        refill(memory, cx, at);
    }
    for at in std::mem::take(&mut memory.behind) {
        refill(memory, cx, at);
    }
    if !memory.pending.is_empty() {
        cx.flush(if memory.urgent { FlushWanted::Now } else { FlushWanted::Expected });
    }
}

/// The batch of a message was not kept: its sender learns it, a retry is a new attempt.
fn failed(memory: &mut MessagingMemory, open: &UnsettledMessage, refusal: &Refusal) -> Ack {
    memory.recent.forget(&open.message.id);
    for recipient in open.recipients.iter().filter(|recipient| !recipient.received) {
        memory.count_delivered(&recipient.key, recipient.copy, open.message.priority);
    }
    let code = refusal.code;
    METRICS.rejected.with_label_values(&[code.as_str()]).inc();
    Ack {
        queued: false,
        error: Some(format!("{}: {}", code.as_str(), refusal.message)),
        code: Some(code.as_str().into()),
        ..Ack::default()
    }
}

/// Nothing is pending, being written or waiting for a commit.
pub fn is_settled(memory: &MessagingMemory) -> bool {
    memory.open.is_empty() && memory.pending.is_empty() && memory.stages.is_empty() && memory.after_commit.is_empty()
}
