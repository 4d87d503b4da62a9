//! What the journal is handed, and what follows from it being on disk or not.

use std::collections::HashMap;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Ack, Response};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::message::ServerMessage;

use super::super::send::answer_all;
use super::super::state::{Awaiting, Journaled, MessagingMemory, Open};
use super::super::store::types::{MessagingPart, NewDelivery};
use super::backlog::{claim, pull_now, refill};
use crate::features::presence::store::{LastSeen, PresencePart, SessionRecord};
use crate::journal::{Batch, Part};
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::peers::PeerRef;
use crate::metrics::METRICS;

/// Rows that one batch of a mesh hands over.
const MAX_BATCH_ROWS: usize = 8_192;

/// What one batch was about.
#[derive(Debug)]
pub struct Ticket {
    seqs: Vec<i64>,
    upto: i64,
    /// Peers that wait for exactly this batch: what they acknowledged before is in it.
    awaiting: HashMap<PeerRef, Awaiting>,
}

/// Takes what is pending as one batch; only what has waited long enough for its acknowledgement when nothing more was wanted.
pub fn take_batch(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, wanted: FlushWanted) -> (Batch, Ticket) {
    let expected_only = wanted <= FlushWanted::Expected && !memory.urgent;
    let ripe_upto = if expected_only { memory.hold.ripe_upto() } else { i64::MAX };
    let mut part = MessagingPart::default();
    let mut presence = PresencePart::default();
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
            part.deliveries.push(NewDelivery {
                mesh_id: open.message.mesh_id.clone(),
                seq,
                recipient_key: recipient.key,
                kind: recipient.kind,
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
        memory.hold.next_period(memory.next_seq - 1, seqs.len());
    } else if memory.pending.is_empty() {
        memory.urgent = false;
    }
    memory.pending_live = memory.pending_live.saturating_sub(seqs.len());
    memory.pending_bytes = memory.pending_bytes.saturating_sub(taken.0);
    memory.pending_rows = memory.pending_rows.saturating_sub(taken.1);
    for seq in &seqs {
        if let Some(receipt) = memory.remembered.receipt_at(*seq) {
            receipt.stored = true;
        }
    }
    part.stages = std::mem::take(&mut memory.stages);
    presence.stats = std::mem::take(&mut memory.stats);
    let mut seen: HashMap<MemberId, i64> = HashMap::new();
    for key in std::mem::take(&mut cx.core.dirty) {
        if let Some(record) = session_record(cx, &key) {
            let last = seen.entry(record.member_id.clone()).or_default();
            *last = (*last).max(record.last_seen_at_ms);
            presence.sessions.push(record);
        }
    }
    presence.last_seen = seen.into_iter().map(|(member_id, at_ms)| LastSeen { member_id, at_ms }).collect();
    let mut batch = Batch::default();
    *batch.part() = part;
    *batch.part() = presence;
    (batch, Ticket { seqs, upto, awaiting: std::mem::take(&mut memory.awaiting) })
}

fn session_record(cx: &MeshContext<'_>, key: &PublicKey) -> Option<SessionRecord> {
    let known = cx.core.roster.known.get(key)?;
    let peer = cx.core.roster.with_key(key).first().and_then(|at| cx.core.roster.get(*at));
    Some(SessionRecord {
        mesh_id: cx.core.id.clone(),
        session_key: *key,
        member_id: known.member.clone(),
        session_id: peer.map_or(&known.session_id, |peer| &peer.session_id).clone(),
        display_name: peer.map_or(&known.name, |peer| &peer.name).clone(),
        cwd: peer.map_or(&known.cwd, |peer| &peer.cwd).clone(),
        hostname: peer.and_then(|peer| peer.hostname.clone()),
        groups: peer.map_or(&known.groups, |peer| &peer.groups).clone(),
        profile: peer.map_or(&known.profile, |peer| &peer.profile).clone(),
        visible: peer.map_or(known.visible, |peer| peer.visible),
        summary: peer.map_or(&known.summary, |peer| &peer.summary).clone(),
        status: peer.map(|peer| peer.status).unwrap_or_default(),
        stats: peer.map(|peer| peer.stats).unwrap_or_default(),
        first_seen_at_ms: cx.now_ms(),
        last_seen_at_ms: peer.map_or(known.last_seen_ms, |peer| peer.last_seen_ms),
        proven: known.proven,
    })
}

/// A batch is on disk, or failed as a whole.
pub fn committed(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    ticket: Ticket,
    result: Result<(), ErrorCode>,
) {
    for seq in &ticket.seqs {
        let Some(mut open) = memory.open.remove(seq) else { continue };
        let Some(reply) = open.reply.take() else { continue };
        match result {
            Ok(()) => answer_all(memory, cx, &open, &reply),
            Err(code) => {
                let ack = failed(memory, &open, code);
                for reply in std::iter::once(&reply).chain(&open.retries) {
                    let id = reply.id.as_deref().unwrap_or_default().to_owned();
                    cx.reply(reply, &ServerMessage::from(Response::from(Ack { id, ..ack.clone() })));
                }
            }
        }
    }
    memory.committed = memory.committed.max(ticket.upto);
    memory.doubtful |= matches!(result, Err(ErrorCode::Unavailable | ErrorCode::Internal));
    for (at, wait) in ticket.awaiting {
        if wait.claim {
            claim(cx, at);
        }
        for (reply, limit) in wait.pulls {
            pull_now(memory, cx, at, limit, reply);
        }
        if !wait.claim {
            refill(memory, cx, at);
        }
    }
    for at in std::mem::take(&mut memory.behind) {
        refill(memory, cx, at);
    }
    if !memory.pending.is_empty() {
        cx.flush(if memory.urgent { FlushWanted::Now } else { FlushWanted::Expected });
    }
}

/// The batch of a message was not kept: its sender learns it, a retry is a new attempt.
fn failed(memory: &mut MessagingMemory, open: &Open, code: ErrorCode) -> Ack {
    memory.remembered.forget(&open.message.id);
    for recipient in open.recipients.iter().filter(|recipient| !recipient.received) {
        memory.count_delivered(&recipient.key, open.message.priority);
    }
    METRICS.messages_rejected.with_label_values(&[code.as_str()]).inc();
    Ack {
        queued: false,
        error: Some(format!("{}: {}", code.as_str(), code.doc())),
        code: Some(code.as_str().into()),
        ..Ack::default()
    }
}

/// Nothing is pending, being written or waiting for a commit.
pub fn is_settled(memory: &MessagingMemory, cx: &MeshContext<'_>) -> bool {
    memory.open.is_empty()
        && memory.pending.is_empty()
        && memory.stages.is_empty()
        && memory.stats.is_empty()
        && memory.awaiting.is_empty()
        && cx.core.dirty.is_empty()
}
