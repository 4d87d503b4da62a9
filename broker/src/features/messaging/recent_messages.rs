//! The newest messages of a mesh as memory keeps them: which of them a retry repeats, and the receipts of each.
//!
//! Every message costs one place in each of these, so they are built for that: receipts lie in the order of the mesh and are
//! found by counting from the oldest, and one map leads from an id to the place.

use std::collections::VecDeque;
use std::sync::Arc;

use claudemesh_protocol::features::messaging::Stage;
use claudemesh_protocol::id::{MemberId, MessageId, PublicKey};
use smallvec::SmallVec;

use crate::hash::FastMap;

/// Messages remembered for retries at least: more than a sender can have in doubt.
pub const MAX_DEDUP: usize = 32_768;
/// Receipt entries (one per recipient) kept in memory; older ones are read from storage.
pub const MAX_RECEIPTS: usize = 131_072;

/// A message as a retry finds it.
#[derive(Clone, Debug)]
pub struct DedupEntry {
    /// Order.
    pub seq: i64,
    /// Fingerprint of the first request.
    pub fingerprint: Option<Arc<str>>,
}

/// Receipt of one recipient.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Session key, or member key.
    pub key: PublicKey,
    /// Member behind it.
    pub member: MemberId,
    /// Step.
    pub stage: Stage,
    /// Wall ms.
    pub at_ms: i64,
    /// Route.
    pub route: Option<Box<str>>,
}

/// Receipts of one message. A hundred thousand are kept, so what they point to is shared or inside.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Order.
    pub seq: i64,
    /// Sender.
    pub sender: MemberId,
    /// Target text.
    pub target_spec: Arc<str>,
    /// By slot.
    pub entries: SmallVec<[Entry; 1]>,
    /// Rows exist, so later steps must reach them.
    pub stored: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct RecentMessages {
    by_id: FastMap<MessageId, DedupEntry>,
    /// What is in `by_id`, oldest first; may name ids that were forgotten since.
    order: VecDeque<(i64, MessageId)>,
    /// By ascending seq.
    receipts: VecDeque<Receipt>,
    /// Entries in `receipts`.
    entries: usize,
}

impl RecentMessages {
    /// A message that was stored before this mesh was loaded.
    pub fn recall(&mut self, id: MessageId, known: DedupEntry) {
        self.order.push_back((known.seq, id.clone()));
        self.by_id.insert(id, known);
        self.trim();
    }

    /// A new message, newer than all others.
    pub fn remember(&mut self, id: MessageId, fingerprint: Option<Arc<str>>, receipt: Receipt) {
        let known = DedupEntry { seq: receipt.seq, fingerprint };
        let weight = weight(&receipt);
        while self.entries + weight > MAX_RECEIPTS
            && let Some(oldest) = self.receipts.pop_front()
        {
            self.entries -= self::weight(&oldest);
        }
        self.entries += weight;
        self.receipts.push_back(receipt);
        self.recall(id, known);
    }

    /// A message that was not kept: a retry is a new attempt.
    pub fn forget(&mut self, id: &MessageId) {
        self.by_id.remove(id);
    }

    /// The message with this id, for a retry.
    pub fn known(&self, id: &MessageId) -> Option<&DedupEntry> {
        self.by_id.get(id)
    }

    /// The receipts of the message with this id.
    pub fn receipt(&self, id: &str) -> Option<&Receipt> {
        self.receipts.get(self.place(self.by_id.get(id)?.seq)?)
    }

    /// The receipts of the message at this place in the order.
    pub fn receipt_at(&mut self, seq: i64) -> Option<&mut Receipt> {
        let place = self.place(seq)?;
        self.receipts.get_mut(place)
    }

    /// Ids that begin like that and have receipts here.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let fits = self.by_id.iter().filter(move |(id, _)| id.as_str().starts_with(prefix));
        fits.filter(|(_, known)| self.place(known.seq).is_some()).map(|(id, _)| id.as_str())
    }

    fn place(&self, seq: i64) -> Option<usize> {
        // Each place in the order was given to a message, but for those that failed between getting it and being admitted.
        let guess = usize::try_from(seq - self.receipts.front()?.seq).ok()?;
        match self.receipts.get(guess) {
            Some(receipt) if receipt.seq == seq => Some(guess),
            _ => self.receipts.binary_search_by_key(&seq, |receipt| receipt.seq).ok(),
        }
    }

    /// Ids go when they are too old for a retry and have no receipts any more.
    fn trim(&mut self) {
        let with_receipts = self.receipts.front().map_or(i64::MAX, |receipt| receipt.seq);
        while self.order.len() > MAX_DEDUP
            && self.order.front().is_some_and(|(seq, _)| *seq < with_receipts)
            && let Some((seq, id)) = self.order.pop_front()
        {
            // The same id may have been remembered again, after its first attempt had failed.
            if self.by_id.get(&id).is_some_and(|known| known.seq == seq) {
                self.by_id.remove(&id);
            }
        }
    }

    /// Leaves nothing.
    #[cfg(test)]
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// One of no one counts, too.
fn weight(receipt: &Receipt) -> usize {
    receipt.entries.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: i64) -> MessageId {
        format!("{seq:032x}").into()
    }

    fn receipt(seq: i64, recipients: usize) -> Receipt {
        let entry = Entry {
            key: PublicKey::from_bytes([1; 32]),
            member: "m".into(),
            stage: Stage::Stored,
            at_ms: 0,
            route: None,
        };
        Receipt {
            seq,
            sender: "s".into(),
            target_spec: "*".into(),
            entries: SmallVec::from_elem(entry, recipients),
            stored: false,
        }
    }

    fn remember(memory: &mut RecentMessages, seq: i64, recipients: usize) {
        memory.remember(id(seq), None, receipt(seq, recipients));
    }

    #[test]
    fn receipts_are_bounded_by_their_entries_and_the_newest_stay() {
        let mut memory = RecentMessages::default();
        let total = MAX_RECEIPTS as i64 + 1_000;
        for seq in 1..=total {
            remember(&mut memory, seq, 1);
        }
        assert_eq!(memory.entries, MAX_RECEIPTS);
        assert!(memory.receipt(id(1_000).as_str()).is_none());
        assert_eq!(memory.receipt(id(1_001).as_str()).map(|receipt| receipt.seq), Some(1_001));
        assert_eq!(
            (memory.by_id.len(), memory.order.len()),
            (MAX_RECEIPTS, MAX_RECEIPTS),
            "ids go with their receipts"
        );
        // A message to many makes room for all of them.
        remember(&mut memory, total + 1, MAX_RECEIPTS);
        assert_eq!((memory.entries, memory.receipts.len()), (MAX_RECEIPTS, 1));
        assert_eq!(memory.receipt_at(total + 1).map(|receipt| receipt.entries.len()), Some(MAX_RECEIPTS));
        assert_eq!(memory.by_id.len(), MAX_DEDUP, "retries are recognised longer than that");
        assert!(memory.known(&id(total)).is_some() && memory.receipt(id(total).as_str()).is_none());
    }

    #[test]
    fn gaps_in_the_order_are_no_trouble() {
        let mut memory = RecentMessages::default();
        for seq in [3, 4, 7, 8, 20] {
            remember(&mut memory, seq, 2);
        }
        for seq in [3, 4, 7, 8, 20] {
            assert_eq!(memory.receipt_at(seq).map(|receipt| receipt.seq), Some(seq));
        }
        for seq in [-1, 0, 5, 6, 9, 21, i64::MAX] {
            assert!(memory.receipt_at(seq).is_none(), "{seq}");
        }
    }

    #[test]
    fn a_message_that_failed_can_be_sent_again_and_stays_known() {
        let mut memory = RecentMessages::default();
        let (again, other) = (id(1), id(2));
        memory.remember(again.clone(), None, receipt(1, 1));
        memory.forget(&again);
        assert!(memory.known(&again).is_none() && memory.receipt(again.as_str()).is_none());
        memory.remember(other, None, receipt(2, 1));
        memory.remember(again.clone(), None, receipt(3, 1));
        assert_eq!(memory.receipt(again.as_str()).map(|receipt| receipt.seq), Some(3));
        // The first attempt becomes too old; the second one does not.
        for seq in 4..MAX_RECEIPTS as i64 + 2 {
            remember(&mut memory, seq, 1);
        }
        assert_eq!(memory.known(&again).map(|known| known.seq), Some(3));
        assert_eq!(memory.with_prefix("0000000000000000000000000000000").count(), 14);
    }
}
