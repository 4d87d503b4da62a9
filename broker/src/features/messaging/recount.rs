//! After a transaction whose outcome is unknown: looks into storage for what it may hold without memory knowing.
//!
//! The senders were told that their messages failed. Those that reached the disk all the same are delivered: a sender that
//! tries again under the same idempotency key finds its first message, and one that does not has sent it once.

use claudemesh_protocol::features::messaging::Priority;

use super::Messaging;
use super::journaling::refill;
use super::state::MessagingMemory;
use crate::journal::store;
use crate::mesh::context::MeshContext;
use crate::mesh::outcome::{Lane, Outcome, Work, boxed};

/// Counts what waits in storage and shows it to the recipients that are here. Fails, and is asked for again, while storage
/// is away.
pub(super) fn recount(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>) {
    memory.doubtful = false;
    let (db, mesh) = (cx.core.db.clone(), cx.core.id.clone());
    let future = async move {
        let counted = store::pending_counts(&db, &mesh).await;
        Ok(move |memory: &mut MessagingMemory, cx: &mut MeshContext<'_>| {
            let Ok(counted) = counted else {
                memory.doubtful = true;
                return Ok(Outcome::Silent);
            };
            let tail = memory.next_seq - 1;
            for (key, found) in counted {
                // Never less than memory knows: it counts what is on its way to the disk.
                let counts = memory.waiting.entry(key).or_default();
                for (count, stored) in counts.iter_mut().zip(found.counts) {
                    *count = (*count).max(stored);
                }
                for at in cx.core.roster.with_key(&key).to_vec() {
                    let Some(peer) = cx.core.roster.get_mut(at).filter(|peer| peer.online()) else { continue };
                    for priority in Priority::ALL {
                        if found.counts[priority as usize] > 0 {
                            peer.outbox.start_from_storage(priority, tail);
                        }
                    }
                    refill(memory, cx, at);
                }
            }
            Ok(Outcome::Silent)
        })
    };
    cx.spawn(Work { lane: Lane("recount", String::new()), future: boxed::<Messaging, _, _>(future), reply_to: None });
}
