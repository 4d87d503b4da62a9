//! Between the mesh and the journal: batches, commits, backlogs, claims.
//!
//! A message is pushed to whoever is there at once and collected for the journal. A delivery that is acknowledged before
//! its batch is handed over needs no row. What cannot be pushed (recipient away, busy, window full) is read back from
//! storage when the recipient is ready, in order, and only up to what is committed.

use std::collections::HashMap;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Ack, InboxPullResult, Priority, Response, Stage};
use claudemesh_protocol::features::presence::{LowWaiting, Stats, event_data};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;

use super::send::{ack_of, hand_over, push_frame};
use super::state::{Awaiting, Counts, Journaled, MessagingMemory, Open};
use super::store::{LaneRead, load_backlog};
use super::{Messaging, receipts, send::Offered};
use crate::features::presence::store::{SessionRecord, StatsDelta};
use crate::journal::Batch;
use crate::journal::store;
use crate::journal::types::{LastSeen, NewDelivery, StageUpdate, StoredMessage};
use crate::mesh::context::{FlushWanted, MeshContext, system_push};
use crate::mesh::outbox::passes;
use crate::mesh::outcome::{Lane, Outcome, Reject, ReplyTo, Work, boxed};
use crate::mesh::peers::{PeerRef, Roster};
use crate::metrics::METRICS;

/// Rows that one batch of a mesh hands over.
const MAX_BATCH_ROWS: usize = 8_192;
/// Receipts that make a batch of their own; fewer wait for company until the next tick.
const MANY_STAGES: usize = 2_048;
/// How often expired messages are looked for.
const EXPIRY_MS: i64 = 3_600_000;

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
    let mut batch = Batch::default();
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
        batch.messages.push(open.message.clone());
        for recipient in open.recipients.iter().filter(|recipient| !recipient.received) {
            batch.deliveries.push(NewDelivery {
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
        if batch.rows() >= MAX_BATCH_ROWS {
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
        if let Some(receipt) = memory.open.get(seq).and_then(|open| memory.receipts.get_mut(open.message.id.as_str())) {
            receipt.stored = true;
        }
    }
    batch.stages = std::mem::take(&mut memory.stages);
    batch.stats = std::mem::take(&mut memory.stats);
    let mut seen: HashMap<MemberId, i64> = HashMap::new();
    for key in std::mem::take(&mut cx.core.dirty) {
        if let Some(record) = session_record(cx, &key) {
            let last = seen.entry(record.member_id.clone()).or_default();
            *last = (*last).max(record.last_seen_at_ms);
            batch.sessions.push(record);
        }
    }
    batch.last_seen = seen.into_iter().map(|(member_id, at_ms)| LastSeen { member_id, at_ms }).collect();
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
        let ack = match result {
            Ok(()) => ack_of(memory, &cx.core.roster, &open, &reply),
            Err(code) => failed(memory, &open, &reply, code),
        };
        cx.reply(&reply, &ServerMessage::from(Response::from(ack)));
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
fn failed(memory: &mut MessagingMemory, open: &Open, reply: &ReplyTo, code: ErrorCode) -> Ack {
    if let Some(client_id) = &open.message.client_message_id {
        memory.dedup.remove(&(open.message.sender_member_id.clone(), client_id.clone()));
    }
    for recipient in open.recipients.iter().filter(|recipient| !recipient.received) {
        memory.count_delivered(&recipient.key, open.message.priority);
    }
    METRICS.messages_rejected.with_label_values(&[code.as_str()]).inc();
    Ack {
        id: reply.id.clone().unwrap_or_default(),
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

/// Once a second: write what waited for company, look for expired messages, forget old windows.
pub fn tick(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>) {
    if !memory.stages.is_empty() || !memory.stats.is_empty() || !cx.core.dirty.is_empty() {
        cx.flush(FlushWanted::Soon);
    }
    if memory.doubtful {
        super::recount::recount(memory, cx);
    }
    // A socket whose queue was full may have drained without any acknowledgement to wake its backlog.
    for at in cx.core.roster.refs() {
        if cx.core.roster.get(at).is_some_and(|peer| peer.outbox.behind()) {
            refill(memory, cx, at);
        }
    }
    // Asked every second, so that a step of the wall clock is seen as one.
    let (mono, believed) = (cx.mono_ms(), cx.core.clock.believed_ms());
    let due = memory.expired_mono_ms.is_none_or(|last| mono - last >= EXPIRY_MS);
    if due {
        memory.expired_mono_ms = Some(mono);
        let (db, mesh, now) = (cx.core.db.clone(), cx.core.id.clone(), believed);
        let next_seq = memory.next_seq;
        let future = async move {
            store::expire(&db, now).await?;
            let counts = store::pending_counts(&db, &mesh).await?;
            Ok(move |memory: &mut MessagingMemory, _: &mut MeshContext<'_>| {
                // What is in memory only is not in these counts, nor what was written since they were read: who attaches in
                // that moment would not be told of it. Counts that are too high only cost a look.
                if memory.open.is_empty() && memory.next_seq == next_seq {
                    memory.waiting = counts.into_iter().map(|(key, found)| (key, found.counts)).collect();
                }
                Ok(Outcome::Silent)
            })
        };
        cx.spawn(Work {
            lane: Lane("expire", String::new()),
            future: boxed::<Messaging, _, _>(future),
            reply_to: None,
        });
    }
}

/// A recipient acknowledged. Settles the message when it was the last one.
pub fn received(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, entry: &Acknowledged<'_>) {
    memory.count_delivered(&entry.key, entry.priority);
    let now = cx.now_ms();
    let mut unwritten = false;
    if let Some(open) = memory.open.get_mut(&entry.seq) {
        let slot = entry.slot.filter(|slot| open.recipients.get(*slot).is_some_and(|one| one.key == entry.key));
        let slot = slot.or_else(|| open.recipients.iter().position(|one| one.key == entry.key));
        if let Some(recipient) = slot.and_then(|slot| open.recipients.get_mut(slot))
            && !recipient.received
        {
            recipient.received = true;
            open.remaining -= 1;
            unwritten = open.journaled == Journaled::Pending && !open.keep;
        }
    }
    if unwritten {
        memory.pending_rows = memory.pending_rows.saturating_sub(1);
        METRICS.deliveries_unwritten.inc();
    } else {
        memory.stages.push(StageUpdate {
            mesh_id: cx.core.id.clone(),
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
    receipts::climb(memory, entry.id, &entry.key, entry.slot, Stage::Received, None, now);
    settle_received(memory, cx, entry.seq);
}

/// One acknowledged delivery.
pub struct Acknowledged<'a> {
    /// Message id.
    pub id: &'a str,
    /// Order.
    pub seq: i64,
    /// Recipient key.
    pub key: PublicKey,
    /// Place among the recipients.
    pub slot: Option<usize>,
    /// Urgency.
    pub priority: Priority,
}

/// Answers the sender when every recipient has acknowledged; a message that needs no row is done then.
pub fn settle_received(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, seq: i64) {
    let Some(open) = memory.open.get_mut(&seq) else { return };
    if open.remaining > 0 || open.keep {
        return;
    }
    let reply = open.reply.take();
    if let (Some(reply), Some(open)) = (reply, memory.open.get(&seq)) {
        let ack = ack_of(memory, &cx.core.roster, open, &reply);
        cx.reply(&reply, &ServerMessage::from(Response::from(ack)));
    }
    if memory.open.get(&seq).is_some_and(|open| open.journaled == Journaled::Pending)
        && let Some(open) = memory.open.remove(&seq)
    {
        memory.dequeue(open.message.ciphertext.len() + open.message.nonce.len(), 1);
    }
}

/// A session attached: what waits for it (and for its member) has to be read from storage first.
pub fn attached(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerRef) {
    let tail = memory.next_seq - 1;
    let Some(peer) = cx.core.roster.get_mut(at) else { return };
    let own = memory.waiting.get(&peer.key()).copied().unwrap_or_default();
    let claims = peer.session_key.is_some() && memory.waiting.contains_key(&peer.member_key);
    let mut reads = false;
    for priority in Priority::ALL {
        // Nothing is in flight on a new socket, so everything undelivered in storage has to be looked at.
        if claims || own[priority as usize] > 0 || peer.outbox.lane(priority).backlog() {
            peer.outbox.start_from_storage(priority, tail);
            reads = true;
        }
    }
    if !reads {
        return;
    }
    // Acknowledgements of the last socket must be on disk before its backlog is read, or they would be pushed again.
    peer.outbox.reading = claims;
    memory.awaiting.entry(at).or_default().claim |= claims;
    cx.flush(FlushWanted::Now);
}

/// Takes over what waits for the member.
fn claim(cx: &mut MeshContext<'_>, at: PeerRef) {
    let Some(peer) = cx.core.roster.get(at) else { return };
    let Some(session) = peer.session_key else { return };
    let (member, epoch) = (peer.member_key, peer.outbox.epoch);
    let (db, mesh) = (cx.core.db.clone(), cx.core.id.clone());
    let future = async move {
        store::claim_member(&db, &mesh, &member, &session).await?;
        let counts = super::store::pending_counts_of(&db, &mesh, &[member, session]).await?;
        Ok(move |memory: &mut MessagingMemory, cx: &mut MeshContext<'_>| {
            for key in [member, session] {
                match counts.get(&key).copied().filter(|counts| counts.iter().any(|count| *count > 0)) {
                    Some(counts) => memory.waiting.insert(key, with_uncommitted(memory, &key, counts)),
                    None => match with_uncommitted(memory, &key, Counts::default()) {
                        [0, 0, 0] => memory.waiting.remove(&key),
                        counts => memory.waiting.insert(key, counts),
                    },
                };
            }
            if let Some(peer) = cx.core.roster.get_mut(at)
                && peer.outbox.epoch == epoch
            {
                peer.outbox.reading = false;
                refill(memory, cx, at);
            }
            Ok(Outcome::Silent)
        })
    };
    let lane = Lane("claim", member.to_hex());
    cx.spawn(Work { lane, future: boxed::<Messaging, _, _>(future), reply_to: None });
}

/// Counts of storage plus what is in memory only.
fn with_uncommitted(memory: &MessagingMemory, key: &PublicKey, mut counts: Counts) -> Counts {
    for open in memory.open.values().filter(|open| open.message.seq > memory.committed) {
        if open.recipients.iter().any(|recipient| recipient.key == *key && !recipient.received) {
            counts[open.message.priority as usize] += 1;
        }
    }
    counts
}

/// Reads on where the window has room: after acknowledgements, commits, and when a status stops holding back.
pub fn refill(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerRef) {
    let committed = memory.committed;
    let Some(peer) = cx.core.roster.get_mut(at) else { return };
    if !peer.online() || peer.outbox.reading || !peer.outbox.wants_refill() {
        return;
    }
    let mut lanes = Vec::new();
    for priority in Priority::ALL {
        let lane = peer.outbox.lane(priority);
        if !lane.backlog() || !passes(peer.status, priority, peer.pulls) {
            continue;
        }
        if lane.pushed >= committed {
            // It is on its way to the disk; the commit comes back here.
            memory.behind.insert(at);
            cx.flush(FlushWanted::Soon);
            return refill_lanes(cx, at, lanes, committed);
        }
        lanes.push(LaneRead { priority, after: lane.pushed });
    }
    refill_lanes(cx, at, lanes, committed);
}

fn refill_lanes(cx: &mut MeshContext<'_>, at: PeerRef, lanes: Vec<LaneRead>, committed: i64) {
    let Some(peer) = cx.core.roster.get_mut(at).filter(|_| !lanes.is_empty()) else { return };
    peer.outbox.reading = true;
    let limit = u32::try_from(peer.outbox.free()).unwrap_or(1).max(1);
    let future = read(cx, at, lanes, limit, committed, false);
    let lane = Lane("refill", at.0.to_string());
    cx.spawn(Work { lane, future, reply_to: None });
}

type BoxedWork =
    std::pin::Pin<Box<dyn std::future::Future<Output = Result<crate::mesh::outcome::Apply, Reject>> + Send>>;

/// Reads a backlog and pushes it. A pull pushes what the status holds back, too, and is answered.
fn read(
    cx: &MeshContext<'_>,
    at: PeerRef,
    lanes: Vec<LaneRead>,
    limit: u32,
    committed: i64,
    pulled: bool,
) -> BoxedWork {
    let (db, mesh) = (cx.core.db.clone(), cx.core.id.clone());
    let peer = cx.core.roster.get(at);
    let (key, epoch) = peer.map_or((PublicKey::from_bytes([0; 32]), 0), |peer| (peer.key(), peer.outbox.epoch));
    boxed::<Messaging, _, _>(async move {
        let loaded = load_backlog(&db, &mesh, &key, &lanes, limit).await;
        Ok(move |memory: &mut MessagingMemory, cx: &mut MeshContext<'_>| {
            let Some(peer) = cx.core.roster.get_mut(at).filter(|peer| peer.outbox.epoch == epoch) else {
                return Ok(Outcome::Silent);
            };
            if !pulled {
                peer.outbox.reading = false;
            }
            let (rows, more) = loaded?;
            let pushed = push_rows(memory, cx, at, rows, pulled);
            if pushed.complete {
                for lane in lanes.iter().filter(|lane| !more.contains(&lane.priority)) {
                    if let Some(peer) = cx.core.roster.get_mut(at) {
                        peer.outbox.read_up_to(lane.priority, committed);
                    }
                }
            }
            refill(memory, cx, at);
            if !pulled {
                return Ok(Outcome::Silent);
            }
            let remaining = waiting_for(memory, &cx.core.roster, at).iter().sum::<u32>();
            let in_flight = cx.core.roster.get(at).map_or(0, |peer| peer.outbox.len());
            let remaining = remaining.saturating_sub(u32::try_from(in_flight).unwrap_or(u32::MAX));
            let result = InboxPullResult { pushed: pushed.count, remaining };
            Ok(Outcome::answer(ServerMessage::from(Response::from(result))))
        })
    })
}

struct PushedRows {
    count: u32,
    complete: bool,
}

fn push_rows(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    at: PeerRef,
    rows: Vec<StoredMessage>,
    pulled: bool,
) -> PushedRows {
    let mut count = 0;
    let now = cx.core.clock.believed_ms();
    for message in rows {
        let Some(peer) = cx.core.roster.get_mut(at) else { break };
        let lane = peer.outbox.lane(message.priority);
        // What is on its way already is acknowledged or pushed again later.
        if message.seq <= lane.pushed || peer.outbox.has(message.id.as_str()) {
            continue;
        }
        let free = pulled || passes(peer.status, message.priority, peer.pulls);
        let frame = push_frame(&message);
        if !free || !peer.outbox.has_room(frame.len()) {
            return PushedRows { count, complete: false };
        }
        if message.expires_at_ms <= now {
            peer.outbox.read_up_to(message.priority, message.seq);
            continue;
        }
        let key = peer.key();
        match hand_over(peer, &message, &frame, None) {
            Offered::Stored => return PushedRows { count, complete: false },
            Offered::Pushed => count += 1,
            Offered::Left => {
                count += 1;
                let id = message.id.as_str();
                let entry = Acknowledged { id, seq: message.seq, key, slot: None, priority: message.priority };
                received(memory, cx, &entry);
            }
        }
    }
    PushedRows { count, complete: true }
}

/// `inbox_pull`: pushes what waits although priority or status hold it back.
///
/// # Errors
/// `no_hello`.
pub fn pull(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, limit: Option<u32>) -> Result<Outcome, Reject> {
    let at = cx.peer()?.at;
    let ceiling = u32::try_from(limits::MAX_IN_FLIGHT).unwrap_or(256);
    let limit = limit.unwrap_or(ceiling).clamp(1, ceiling);
    // What is not on disk yet is pushed after the next commit, with everything before it.
    memory.awaiting.entry(at).or_default().pulls.push((cx.reply_to(), limit));
    cx.flush(FlushWanted::Now);
    Ok(Outcome::Silent)
}

fn pull_now(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerRef, limit: u32, reply: Option<ReplyTo>) {
    let committed = memory.committed;
    let Some(peer) = cx.core.roster.get(at) else { return };
    let lanes: Vec<LaneRead> = Priority::ALL
        .into_iter()
        .filter(|priority| peer.outbox.lane(*priority).backlog())
        .map(|priority| LaneRead { priority, after: peer.outbox.lane(priority).pushed })
        .collect();
    let future = read(cx, at, lanes, limit, committed, true);
    cx.spawn(Work { lane: Lane("refill", at.0.to_string()), future, reply_to: reply });
}

/// A status stopped holding back: drain, and say how many `low` messages could be pulled.
pub fn became_idle(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerRef) {
    refill(memory, cx, at);
    let low = waiting_for(memory, &cx.core.roster, at)[Priority::Low as usize];
    let pulls = cx.core.roster.get(at).is_some_and(|peer| peer.pulls && peer.online());
    if low > 0 && pulls {
        let frame = system_push(&cx.core.id, "low_waiting", event_data(&LowWaiting { count: low }), cx.now_ms());
        cx.push_to(at, &frame);
    }
}

/// Undelivered messages of a peer, by priority.
pub fn waiting_for(memory: &MessagingMemory, roster: &Roster, at: PeerRef) -> Counts {
    let Some(peer) = roster.get(at) else { return Counts::default() };
    let mut counts = memory.waiting.get(&peer.key()).copied().unwrap_or_default();
    if peer.session_key.is_some() && !peer.ephemeral {
        let member = memory.waiting.get(&peer.member_key).copied().unwrap_or_default();
        for (count, more) in counts.iter_mut().zip(member) {
            *count += more;
        }
    }
    counts
}

/// Totals of a member over all its sessions, as `restoredStats`.
pub fn totals(memory: &MessagingMemory, member: &MemberId) -> Stats {
    let Some(total) = memory.totals.get(member) else { return Stats::default() };
    Stats {
        messages_in: Some(total.messages_in as f64),
        messages_out: Some(total.messages_out as f64),
        tool_calls: Some(total.tool_calls as f64),
        errors: Some(total.errors as f64),
        uptime: None,
    }
}

/// Adds what a session's counters gained since they were last added; never the same gain twice.
pub fn count_stats(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerRef) {
    let mesh_id = cx.core.id.clone();
    let Some(peer) = cx.core.roster.get_mut(at) else { return };
    let gain = |now: Option<f64>, counted: Option<f64>| {
        let (now, counted) = (now.unwrap_or(0.0), counted.unwrap_or(0.0));
        // Counters that went back belong to a restarted client and count from zero.
        let gained = if now >= counted { now - counted } else { now };
        gained.clamp(0.0, 1e15) as i64
    };
    let delta = StatsDelta {
        mesh_id: mesh_id.clone(),
        member_id: peer.member.clone(),
        messages_in: gain(peer.stats.messages_in, peer.counted.messages_in),
        messages_out: gain(peer.stats.messages_out, peer.counted.messages_out),
        tool_calls: gain(peer.stats.tool_calls, peer.counted.tool_calls),
        errors: gain(peer.stats.errors, peer.counted.errors),
    };
    peer.counted = peer.stats;
    if delta.messages_in + delta.messages_out + delta.tool_calls + delta.errors == 0 {
        return;
    }
    let total = memory.totals.entry(delta.member_id.clone()).or_insert_with(|| StatsDelta {
        mesh_id,
        member_id: delta.member_id.clone(),
        messages_in: 0,
        messages_out: 0,
        tool_calls: 0,
        errors: 0,
    });
    total.messages_in += delta.messages_in;
    total.messages_out += delta.messages_out;
    total.tool_calls += delta.tool_calls;
    total.errors += delta.errors;
    memory.stats.push(delta);
}
