//! What waits in storage for a recipient: found when it comes, read on as it acknowledges, pulled when it asks.

use std::cmp::Reverse;
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{InboxPullResult, Priority, Response};
use claudemesh_protocol::features::presence::{LowWaiting, PeerStatus, event_data};
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::limits;

use super::super::Messaging;
use super::super::send::{hand_over, push_frame};
use super::super::state::{Counts, MessagingMemory};
use super::super::store::{BacklogCursor, Queues, Waiting, load_backlog};
use super::received::{Acknowledged, received};
use crate::db::DbError;
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::outbox::{InFlight, Owed, passes};
use crate::mesh::outcome::{Lane, Outcome, ReplyTo, Slow, Work, boxed};
use crate::mesh::peers::{Peer, PeerHandle, Roster};
use crate::refusal::Refusal;
use crate::session::queue::PeerSender;

/// A session attached: what waits for it, and what it may take of its member's, has to be read from storage.
pub fn attached(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerHandle) {
    let Some(peer) = cx.roster().get(at) else { return };
    if let Some(key) = peer.session_key.filter(|key| memory.copies.contains_key(key)) {
        // Its copies that another session of its member has taken meanwhile are its own again.
        for other in cx.roster().of_member(&peer.member.clone()).to_vec() {
            if let Some(other) = cx.sending(other).filter(|other| other.handle != at) {
                other.outbox.give_back(&key);
            }
        }
    }
    let tail = memory.next_seq - 1;
    let mut counts = waiting_for(memory, cx.roster(), at);
    for key in left_keys(memory, cx.roster(), at) {
        add(&mut counts, memory.copies.get(&key).copied().unwrap_or_default());
    }
    let Some(peer) = cx.sending(at) else { return };
    let classes = Priority::ALL.map(|priority| counts[priority as usize] > 0 || peer.outbox.cursor(priority).backlog());
    if classes == [false; Priority::ALL.len()] {
        return;
    }
    // Acknowledgements of the last socket must be on disk before its backlog is read, or they would be pushed again.
    peer.outbox.look_again(classes, tail);
    memory.after_commit.entry(at).or_default().look = true;
    cx.flush(FlushWanted::Now);
}

/// What has to be on disk before the backlog of a peer is read, is.
pub(super) fn look(cx: &mut MeshContext<'_>, at: PeerHandle) {
    if let Some(peer) = cx.sending(at) {
        peer.outbox.reading = false;
    }
}

/// A connection of a member is gone: what it had of the member's messages and did not acknowledge goes to another one that is
/// here. It is shown everything again and takes what it did not get before.
pub fn left_behind(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, member: &MemberId) {
    let Some(key) = cx.roster().member(member).map(|member| member.pubkey) else { return };
    if let Some(keys) = memory.copy_keys.get_mut(member) {
        keys.retain(|key| memory.copies.contains_key(key));
        if keys.is_empty() {
            memory.copy_keys.remove(member);
        }
    }
    if !memory.waiting.contains_key(&key) && !memory.copy_keys.contains_key(member) {
        return;
    }
    let here = cx.roster().of_member(member).iter().filter_map(|at| cx.roster().get(*at));
    let here = here.filter(|peer| peer.online() && !peer.ephemeral);
    // The one that is most likely to take it at once, and to say so.
    let next = here
        .max_by_key(|peer| (peer.status == PeerStatus::Idle, peer.acks, Reverse(peer.handle)))
        .map(|peer| peer.handle);
    if let Some(next) = next
        && (memory.waiting.contains_key(&key) || !left_keys(memory, cx.roster(), next).is_empty())
    {
        attached(memory, cx, next);
    }
}

/// Sessions that left copies behind and are looked at together; when theirs are taken, the others are seen.
const MAX_LEFT: usize = 1_000;

/// Keys of sessions of the same member that are not here and left copies of messages to the member behind.
fn left_keys(memory: &MessagingMemory, roster: &Roster, at: PeerHandle) -> Vec<PublicKey> {
    let Some(peer) = roster.get(at).filter(|peer| !peer.ephemeral) else { return Vec::new() };
    let Some(keys) = memory.copy_keys.get(&peer.member) else { return Vec::new() };
    let here = |key: &PublicKey| roster.with_key(key).iter().any(|at| roster.get(*at).is_some_and(Peer::online));
    let left = keys.iter().filter(|key| memory.copies.contains_key(*key) && !here(key));
    left.filter(|key| **key != peer.key() && **key != peer.member_key).copied().take(MAX_LEFT).collect()
}

/// Longest read; shorter than the deadline of work, so that anyone who waits for it learns of a failure.
const STORAGE_DEADLINE: Duration = Duration::from_secs(10);

async fn in_time<T>(storage: impl Future<Output = Result<T, DbError>>) -> Result<T, Refusal> {
    let late = |_| Refusal::new(ErrorCode::Timeout, "storage took too long");
    Ok(tokio::time::timeout(STORAGE_DEADLINE, storage).await.map_err(late)??)
}

/// Reads on where the window has room: after acknowledgements, commits, and when a status stops holding back.
pub fn refill(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerHandle) {
    let committed = memory.committed;
    let Some(peer) = cx.sending(at) else { return };
    if !peer.online() || peer.outbox.reading || !peer.outbox.wants_refill(peer.acks) {
        return;
    }
    let mut lanes = Vec::new();
    for priority in Priority::ALL {
        let lane = peer.outbox.cursor(priority);
        if !lane.backlog() || !passes(peer.status, priority, peer.pulls) {
            continue;
        }
        if lane.pushed >= committed {
            // It is on its way to the disk; the commit comes back here.
            memory.behind.insert(at);
            cx.flush(FlushWanted::Soon);
            return refill_lanes(memory, cx, at, lanes);
        }
        lanes.push(BacklogCursor { priority, after: lane.pushed });
    }
    refill_lanes(memory, cx, at, lanes);
}

fn refill_lanes(memory: &MessagingMemory, cx: &mut MeshContext<'_>, at: PeerHandle, lanes: Vec<BacklogCursor>) {
    let Some(peer) = cx.sending(at).filter(|_| !lanes.is_empty()) else { return };
    peer.outbox.reading = true;
    let limit = u32::try_from(peer.outbox.free(peer.acks)).unwrap_or(1).max(1);
    let future = read(memory, cx, at, lanes, limit, false);
    cx.spawn(Work::new(refill_lane(at), future));
}

fn refill_lane(at: PeerHandle) -> Lane {
    Lane::of::<Messaging>(format_args!("refill {}", at.0))
}

/// Reads a backlog and pushes it. A pull pushes what the status holds back, too, and is answered.
fn read(
    memory: &MessagingMemory,
    cx: &MeshContext<'_>,
    at: PeerHandle,
    lanes: Vec<BacklogCursor>,
    limit: u32,
    pulled: bool,
) -> Slow {
    let (storage, committed) = (cx.storage(), memory.committed);
    let peer = cx.roster().get(at);
    let (epoch, socket_no) =
        (cx.roster().outbox(at).map_or(0, |outbox| outbox.epoch), peer.map_or(0, |peer| peer.socket_no));
    let queues = peer.map(|peer| Queues {
        own: peer.key(),
        member: peer.member_key,
        member_id: peer.member.clone(),
        left: left_keys(memory, cx.roster(), at),
    });
    boxed::<Messaging, _, _>(async move {
        let loaded = match &queues {
            Some(queues) => in_time(Box::pin(load_backlog(&storage, queues, &lanes, limit))).await,
            None => Ok((Vec::new(), Vec::new())),
        };
        Ok(move |memory: &mut MessagingMemory, cx: &mut MeshContext<'_>| {
            let Some(peer) = cx.sending(at).filter(|peer| peer.socket_no == socket_no && peer.online()) else {
                return Ok(Outcome::Silent);
            };
            if peer.outbox.epoch != epoch {
                // It was told to look from the beginning meanwhile. A pull waits for an answer, so it is made again after that.
                return Ok(match pulled {
                    true => Outcome::Work(pull_work(memory, cx, at, limit)),
                    false => Outcome::Silent,
                });
            }
            if !pulled {
                peer.outbox.reading = false;
            }
            let (rows, more) = loaded?;
            let pushed = push_rows(cx, at, rows, pulled);
            if pushed.complete {
                for lane in lanes.iter().filter(|lane| !more.contains(&lane.priority)) {
                    if let Some(peer) = cx.sending(at) {
                        peer.outbox.read_up_to(lane.priority, committed);
                    }
                }
            }
            refill(memory, cx, at);
            if !pulled {
                return Ok(Outcome::Silent);
            }
            let remaining = waiting_for(memory, cx.roster(), at).iter().sum::<u32>();
            let in_flight = on_its_way(cx.roster(), at);
            let remaining = remaining.saturating_sub(u32::try_from(in_flight).unwrap_or(u32::MAX));
            let result = InboxPullResult { pushed: pushed.count, remaining };
            Ok(Outcome::Answer(Box::new(Response::from(result).into())))
        })
    })
}

struct PushedRows {
    count: u32,
    complete: bool,
}

fn push_rows(cx: &mut MeshContext<'_>, at: PeerHandle, rows: Vec<Waiting>, pulled: bool) -> PushedRows {
    let mut count = 0;
    let now = cx.believed_ms();
    for Waiting { message, owed } in rows {
        let (Some(peer), Some(outbox)) = (cx.roster().get(at), cx.roster().outbox(at)) else { break };
        // What is on its way already is acknowledged or pushed again later.
        if message.seq <= outbox.cursor(message.priority).pushed || outbox.knows(message.id.as_str(), message.seq) {
            continue;
        }
        // What is not for this very session goes to one of its member.
        let shared = owed.iter().all(|owed| Some(owed.key) != peer.session_key);
        if shared && is_elsewhere(cx.roster(), peer, message.id.as_str()) {
            continue;
        }
        let frame = push_frame(cx.roster(), &message);
        let Some(mut peer) = cx.sending(at) else { break };
        let free = pulled || passes(peer.status, message.priority, peer.pulls);
        if !free || !peer.outbox.has_room(frame.len(), peer.acks) {
            return PushedRows { count, complete: false };
        }
        if message.expires_at_ms <= now {
            peer.outbox.read_up_to(message.priority, message.seq);
            continue;
        }
        if !hand_over(&mut peer, &message, &frame, None, owed) {
            return PushedRows { count, complete: false };
        }
        count += 1;
    }
    PushedRows { count, complete: true }
}

/// Whether another session of the same member has a message on its way.
fn is_elsewhere(roster: &Roster, peer: &Peer, id: &str) -> bool {
    let others = roster.of_member(&peer.member).iter().filter_map(|at| roster.get(*at));
    let others = others.filter(|other| other.handle != peer.handle && other.online());
    others.filter_map(|other| roster.outbox(other.handle)).any(|outbox| outbox.has(id))
}

/// Of what [`waiting_for`] counts, how much is on its way: to the peer, or from its member's queue to another session.
fn on_its_way(roster: &Roster, at: PeerHandle) -> usize {
    let Some(peer) = roster.get(at) else { return 0 };
    let others = roster.of_member(&peer.member).iter().filter_map(|at| roster.get(*at));
    let others = others.filter(|other| other.handle != at && other.online() && peer.session_key.is_some());
    let owing = |at: PeerHandle, keys: &[PublicKey]| roster.outbox(at).map_or(0, |outbox| outbox.owing(keys));
    let elsewhere: usize = others.map(|other| owing(other.handle, &[peer.member_key])).sum();
    elsewhere + owing(at, &[peer.key(), peer.member_key])
}

/// Once a second: what was pushed to a client that never acknowledges counts as delivered when its socket stayed open.
pub(super) fn settle_stayed(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerHandle) {
    let mono = cx.mono_ms();
    let Some(peer) = cx.sending(at).filter(|peer| !peer.acks && !peer.outbox.is_empty()) else { return };
    let Some(left) = peer.socket.as_ref().map(PeerSender::written_bytes) else { return };
    for (id, entry) in peer.outbox.take_stayed(left, mono, peer.heard_mono_ms) {
        end(memory, cx, at, id.as_str(), &entry);
    }
    refill(memory, cx, at);
}

/// A peer has a message: ends every delivery that its push was for.
pub(in crate::features::messaging) fn end(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    at: PeerHandle,
    id: &str,
    entry: &InFlight,
) {
    for owed in &entry.owed {
        let Some(peer) = cx.roster().get(at) else { return };
        if Some(owed.key) != peer.session_key {
            // Others of the member may have the same copy on their way.
            for other in cx.roster().of_member(&peer.member.clone()).to_vec() {
                if let Some(other) = cx.sending(other).filter(|other| other.handle != at) {
                    other.outbox.ended(id, &owed.key);
                }
            }
        }
        let Owed { key, copy } = *owed;
        let entry = Acknowledged { seq: entry.seq, key, copy, slot: entry.slot, priority: entry.priority };
        received(memory, cx, &entry);
    }
}

/// `inbox_pull`: pushes what waits although priority or status hold it back.
///
/// # Errors
/// `no_hello`.
pub(in crate::features::messaging) fn pull(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    limit: Option<u32>,
) -> Result<Outcome<InboxPullResult>, Refusal> {
    let at = cx.peer()?.handle;
    let ceiling = u32::try_from(limits::MAX_IN_FLIGHT).unwrap_or(256);
    let limit = limit.unwrap_or(ceiling).clamp(1, ceiling);
    // What is not on disk yet is pushed after the next commit, with everything before it.
    memory.after_commit.entry(at).or_default().pulls.push((cx.reply_to(), limit));
    cx.flush(FlushWanted::Now);
    Ok(Outcome::Silent)
}

pub(super) fn pull_now(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    at: PeerHandle,
    limit: u32,
    reply: Option<ReplyTo>,
) {
    if cx.roster().get(at).is_some() {
        let work = pull_work(memory, cx, at, limit);
        cx.spawn(Work { reply_to: reply, ..work });
    }
}

fn pull_work(memory: &MessagingMemory, cx: &MeshContext<'_>, at: PeerHandle, limit: u32) -> Work {
    let lanes: Vec<BacklogCursor> = Priority::ALL
        .into_iter()
        .filter_map(|priority| Some((priority, cx.roster().outbox(at)?.cursor(priority))))
        .filter(|(_, lane)| lane.backlog())
        .map(|(priority, lane)| BacklogCursor { priority, after: lane.pushed })
        .collect();
    let future = read(memory, cx, at, lanes, limit, true);
    Work { tag: "inbox_pull", ..Work::new(refill_lane(at), future) }
}

/// A status stopped holding back: drain, and say how many `low` messages could be pulled.
pub fn became_idle(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, at: PeerHandle) {
    refill(memory, cx, at);
    let low = waiting_for(memory, cx.roster(), at)[Priority::Low as usize];
    let pulls = cx.roster().get(at).is_some_and(|peer| peer.pulls && peer.online());
    if low > 0 && pulls {
        let event = cx.system_event("low_waiting", event_data(&LowWaiting { count: low }));
        cx.push(at, &event);
    }
}

/// Undelivered messages of a peer, by priority: its own, and those that wait for its member.
pub fn waiting_for(memory: &MessagingMemory, roster: &Roster, at: PeerHandle) -> Counts {
    let Some(peer) = roster.get(at) else { return Counts::default() };
    let mut counts = memory.waiting.get(&peer.key()).copied().unwrap_or_default();
    if peer.session_key.is_some() && !peer.ephemeral {
        let member = memory.waiting.get(&peer.member_key).copied().unwrap_or_default();
        add(&mut counts, member);
    }
    counts
}

fn add(counts: &mut Counts, more: Counts) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}
