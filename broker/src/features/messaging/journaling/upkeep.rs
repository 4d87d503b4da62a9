//! Once a second: what waited for company, what expired, what storage may hold without memory knowing.

use super::super::Messaging;
use super::super::state::MessagingMemory;
use super::super::store;
use super::backlog::{attached, refill};
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::outcome::{Lane, Outcome, Work, boxed};

/// How often expired messages are looked for.
const EXPIRY_MS: i64 = 3_600_000;

/// Once a second: write what waited for company, look for expired messages, forget old windows.
pub fn tick(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>) {
    if !memory.stages.is_empty() || !memory.stats.is_empty() || !cx.core.dirty.is_empty() {
        cx.flush(FlushWanted::Soon);
    }
    if memory.doubtful {
        recount(memory, cx);
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
        let (storage, now) = (cx.core.storage(), believed);
        let next_seq = memory.next_seq;
        let future = async move {
            store::expire(storage.db(), now).await?;
            let counts = store::pending_counts(&storage).await?;
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

/// After a transaction whose outcome is unknown: counts what waits in storage and shows it to the recipients that are here.
///
/// The senders were told that their messages failed. Those that reached the disk all the same are delivered: a sender that
/// tries again under the same idempotency key finds its first message, and one that does not has sent it once. Fails, and is
/// asked for again, while storage is away.
fn recount(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>) {
    memory.doubtful = false;
    let storage = cx.core.storage();
    let future = async move {
        let counted = store::pending_counts(&storage).await;
        Ok(move |memory: &mut MessagingMemory, cx: &mut MeshContext<'_>| {
            let Ok(counted) = counted else {
                memory.doubtful = true;
                return Ok(Outcome::Silent);
            };
            for (key, found) in &counted {
                // Never less than memory knows: it counts what is on its way to the disk.
                let counts = memory.waiting.entry(*key).or_default();
                for (count, stored) in counts.iter_mut().zip(found.counts) {
                    *count = (*count).max(stored);
                }
            }
            for at in cx.core.roster.refs() {
                let Some(peer) = cx.core.roster.get_mut(at).filter(|peer| peer.online() && !peer.ephemeral) else {
                    continue;
                };
                let unclaimed = memory.unclaimed.remove(&at);
                if unclaimed {
                    peer.outbox.reading = false;
                }
                if unclaimed || [peer.key(), peer.member_key].iter().any(|key| counted.contains_key(key)) {
                    attached(memory, cx, at);
                }
            }
            memory.unclaimed.clear();
            Ok(Outcome::Silent)
        })
    };
    cx.spawn(Work { lane: Lane("recount", String::new()), future: boxed::<Messaging, _, _>(future), reply_to: None });
}
