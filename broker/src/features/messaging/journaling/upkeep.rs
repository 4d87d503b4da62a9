//! Once a second: what waited for company, what expired, what storage may hold without memory knowing.

use super::super::Messaging;
use super::super::state::MessagingMemory;
use super::super::store;
use super::backlog::{attached, refill, settle_stayed};
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::outcome::{Lane, Outcome, Work, boxed};

/// How often expired messages are looked for.
const EXPIRY_MS: i64 = 3_600_000;
/// The timer of that.
pub const EXPIRY: &str = "expire";

/// Once a second: write what waited for company, push what waited for a socket.
pub fn tick(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>) {
    if !memory.stages.is_empty() {
        cx.flush(FlushWanted::Soon);
    }
    if memory.doubtful {
        recount(memory, cx);
    }
    // A socket whose queue was full may have drained without any acknowledgement to wake its backlog.
    for at in cx.roster().refs() {
        if cx.roster().outbox(at).is_some_and(|outbox| outbox.behind()) {
            refill(memory, cx, at);
        }
        settle_stayed(memory, cx, at);
    }
    // Asked every second, so that a step of the wall clock is seen as one.
    cx.believed_ms();
}

/// Once an hour: ends what expired, and counts anew what waits.
pub fn expire(memory: &MessagingMemory, cx: &mut MeshContext<'_>) {
    cx.wake_at(EXPIRY, cx.mono_ms() + EXPIRY_MS);
    let (storage, now, next_seq) = (cx.storage(), cx.believed_ms(), memory.next_seq);
    let future = async move {
        store::expire(storage.db(), now).await?;
        let counts = store::pending_counts(&storage).await?;
        let copies = store::pending_copies(&storage).await?;
        Ok(move |memory: &mut MessagingMemory, _: &mut MeshContext<'_>| {
            // What is in memory only is not in these counts, nor what was written since they were read: who attaches in
            // that moment would not be told of it. Counts that are too high only cost a look.
            if memory.open.is_empty() && memory.next_seq == next_seq {
                memory.waiting = counts.into_iter().map(|(key, found)| (key, found.counts)).collect();
                memory.copies.clear();
                memory.copy_keys.clear();
                memory.recount_copies(copies);
            }
            Ok(Outcome::Silent)
        })
    };
    cx.spawn(Work::new(Lane::of::<Messaging>("expire"), boxed::<Messaging, _, _>(future)));
}

/// After a transaction whose outcome is unknown: counts what waits in storage and shows it to the recipients that are here.
///
/// The senders were told that their messages failed. Those that reached the disk all the same are delivered: a sender that
/// tries again under the same idempotency key finds its first message, and one that does not has sent it once. Fails, and is
/// asked for again, while storage is away.
fn recount(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>) {
    memory.doubtful = false;
    let storage = cx.storage();
    let future = async move {
        let counted = store::pending_counts(&storage).await;
        Ok(move |memory: &mut MessagingMemory, cx: &mut MeshContext<'_>| {
            let Ok(counted) = counted else {
                memory.doubtful = true;
                return Ok(Outcome::Silent);
            };
            for (key, found) in counted {
                // Never less than memory knows: it counts what is on its way to the disk.
                let counts = memory.waiting.entry(key).or_default();
                for (count, stored) in counts.iter_mut().zip(found.counts) {
                    *count = (*count).max(stored);
                }
            }
            for at in cx.roster().refs() {
                let here = cx.roster().get(at).is_some_and(|peer| peer.online() && !peer.ephemeral);
                if here {
                    attached(memory, cx, at);
                }
            }
            Ok(Outcome::Silent)
        })
    };
    cx.spawn(Work::new(Lane::of::<Messaging>("recount"), boxed::<Messaging, _, _>(future)));
}
