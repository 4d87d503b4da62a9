//! What waits in storage for a recipient: found when it comes, read on as it acknowledges, pulled when it asks.

use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{InboxPullResult, Priority, Response};
use claudemesh_protocol::features::presence::{LowWaiting, event_data};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;

use super::super::Messaging;
use super::super::send::{Offered, hand_over, push_frame};
use super::super::state::{Counts, MessagingMemory};
use super::super::store::types::StoredMessage;
use super::super::store::{self, LaneRead, load_backlog};
use super::received::{Acknowledged, received};
use crate::db::DbError;
use crate::mesh::context::{FlushWanted, MeshContext, system_push};
use crate::mesh::outbox::passes;
use crate::mesh::outcome::{Lane, Outcome, Reject, ReplyTo, Work, boxed};
use crate::mesh::peers::{PeerRef, Roster};

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
pub(super) fn claim(cx: &mut MeshContext<'_>, at: PeerRef) {
    let Some(peer) = cx.core.roster.get(at) else { return };
    let Some(session) = peer.session_key else { return };
    let (member, epoch) = (peer.member_key, peer.outbox.epoch);
    let storage = cx.core.storage();
    let future = async move {
        let claimed = async {
            store::claim_member(&storage, &member, &session).await?;
            store::pending_counts_of(&storage, &[member, session]).await
        };
        let counts = in_time(Box::pin(claimed)).await;
        Ok(move |memory: &mut MessagingMemory, cx: &mut MeshContext<'_>| {
            let counts = counts.inspect_err(|_| {
                // Nothing is read before it is claimed, or the order would be lost: it is claimed again, once storage is back.
                memory.unclaimed.insert(at);
                memory.doubtful = true;
            })?;
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

/// Longest read or claim; shorter than the deadline of work, so that whoever waits for it learns of a failure.
const STORAGE_DEADLINE: Duration = Duration::from_secs(10);

async fn in_time<T>(storage: impl Future<Output = Result<T, DbError>>) -> Result<T, Reject> {
    let late = |_| Reject::new(ErrorCode::Timeout, "storage took too long");
    Ok(tokio::time::timeout(STORAGE_DEADLINE, storage).await.map_err(late)??)
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
    let storage = cx.core.storage();
    let peer = cx.core.roster.get(at);
    let (key, epoch) = peer.map_or((PublicKey::from_bytes([0; 32]), 0), |peer| (peer.key(), peer.outbox.epoch));
    boxed::<Messaging, _, _>(async move {
        let loaded = in_time(Box::pin(load_backlog(&storage, &key, &lanes, limit))).await;
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
                let entry = Acknowledged { seq: message.seq, key, slot: None, priority: message.priority };
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
pub(in crate::features::messaging) fn pull(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    limit: Option<u32>,
) -> Result<Outcome, Reject> {
    let at = cx.peer()?.at;
    let ceiling = u32::try_from(limits::MAX_IN_FLIGHT).unwrap_or(256);
    let limit = limit.unwrap_or(ceiling).clamp(1, ceiling);
    // What is not on disk yet is pushed after the next commit, with everything before it.
    memory.awaiting.entry(at).or_default().pulls.push((cx.reply_to(), limit));
    cx.flush(FlushWanted::Now);
    Ok(Outcome::Silent)
}

pub(super) fn pull_now(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    at: PeerRef,
    limit: u32,
    reply: Option<ReplyTo>,
) {
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
