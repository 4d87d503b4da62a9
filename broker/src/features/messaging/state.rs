//! What messaging remembers of one mesh. Everything durable is in storage; this is queues, windows and caches, all bounded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::id::{MemberId, MessageId, PublicKey};
use smallvec::SmallVec;

use super::journaling::Ticket;
use super::recent_messages::{DedupEntry, RecentMessages};
use super::sent::Sent;
use super::store::types::{NewMessage, StageUpdate};
use crate::hash::{FastMap, FastSet};
use crate::mesh::outcome::ReplyTo;
use crate::mesh::peers::PeerHandle;
use crate::mesh::resolve::Recipient;
use crate::session::bucket::Bucket;

/// Counts by priority: now, next, low.
pub type Counts = [u32; Priority::ALL.len()];

/// Messages that may wait for the journal before senders are told `busy`.
pub const MAX_PENDING: usize = 65_536;
/// Bytes that may wait for the journal before senders are told `busy`.
pub const MAX_PENDING_BYTES: usize = 64 << 20;

/// Where a message stands with the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journaled {
    /// Not handed over yet: an acknowledged delivery needs no row.
    Pending,
    /// In a transaction.
    Writing,
}

/// A message whose sender waits, or that is not on disk yet.
#[derive(Debug)]
pub struct UnsettledMessage {
    /// The message.
    pub message: Arc<NewMessage>,
    /// Its recipients; one of them needs no allocation.
    pub recipients: SmallVec<[Recipient; 1]>,
    /// Recipients that have not acknowledged.
    pub remaining: usize,
    /// Bytes of one push.
    pub frame_bytes: usize,
    /// Who gets the ack; `None` once it was sent.
    pub reply: Option<ReplyTo>,
    /// Retries that came before the ack; each of them is answered.
    pub retries: Vec<ReplyTo>,
    /// State.
    pub journaled: Journaled,
    /// Written even when everyone acknowledged: topic history.
    pub durable: bool,
}

impl UnsettledMessage {
    /// Retries of one message that are remembered until its ack.
    const MAX_RETRIES: usize = 64;

    /// The sender asks again. Its first socket may be gone, and so may those of many retries before this one.
    pub fn ask_again(&mut self, reply: ReplyTo) {
        if self.retries.len() >= Self::MAX_RETRIES {
            self.retries.remove(0);
        }
        self.retries.push(reply);
    }
}

/// Work that waits for the next commit of a peer.
#[derive(Clone, Debug, Default)]
pub struct AfterCommit {
    /// Storage is to be looked at from the beginning.
    pub look: bool,
    /// `inbox_pull` requests: who is answered, how many.
    pub pulls: Vec<(Option<ReplyTo>, u32)>,
}

/// How long messages that are on their way wait for their acknowledgement before they are written.
///
/// A message waits one to two periods. The period follows the load: under little of it the shortest is kept, so that a
/// sender never waits long for a slow recipient; when many are written although their acknowledgement was already on its
/// way, it doubles, because each such row costs more than the whole delivery.
#[derive(Debug)]
pub struct AckGracePeriod {
    /// Milliseconds of one period.
    pub period_ms: u64,
    /// Everything up to here has waited for one period.
    upto: i64,
    /// Messages that were admitted before `upto`, and since then.
    admitted: (usize, usize),
}

impl Default for AckGracePeriod {
    fn default() -> Self {
        Self { period_ms: Self::SHORTEST_MS, upto: 0, admitted: (0, 0) }
    }
}

impl AckGracePeriod {
    /// As long as any other message waits for company.
    const SHORTEST_MS: u64 = crate::journal::BATCH_WINDOW.as_millis() as u64;
    /// Sessions keep at most some thousand messages in flight, which takes about this long at full load.
    const LONGEST_MS: u64 = 32;
    /// Messages in a period that are worth a longer one.
    const LOADED: usize = 64;

    /// Newest message that has waited long enough.
    pub fn ripe_upto(&self) -> i64 {
        self.upto
    }

    /// So many messages more are pending.
    pub fn admit(&mut self, count: usize) {
        self.admitted.1 += count;
    }

    /// A period is over; `late` messages of the one before it had to be written.
    pub fn next_period(&mut self, newest: i64, late: usize) {
        let (before, now) = self.admitted;
        if before >= Self::LOADED && late * 4 > before {
            self.period_ms = (self.period_ms * 2).min(Self::LONGEST_MS);
        } else if before < Self::LOADED || late * 16 < before {
            self.period_ms = (self.period_ms / 2).max(Self::SHORTEST_MS);
        }
        self.admitted = (now, 0);
        self.upto = newest;
    }
}

/// Memory of messaging in one mesh.
#[derive(Debug, Default)]
pub struct MessagingMemory {
    /// The next message's place in the order.
    pub next_seq: i64,
    /// Everything up to here is on disk or needs no row.
    pub committed: i64,
    /// Messages not on disk, by seq.
    pub open: FastMap<i64, UnsettledMessage>,
    /// Seqs to be written, in order. May still hold some that were settled meanwhile and need no row.
    pub pending: VecDeque<i64>,
    /// Those that do need one.
    pub pending_live: usize,
    /// Bytes of the pending bodies.
    pub pending_bytes: usize,
    /// Delivery rows among the pending, for the batch size.
    pub pending_rows: usize,
    /// Something pending has to be written: a recipient is away, or it belongs to a topic.
    pub urgent: bool,
    /// When the others are written.
    pub ack_grace: AckGracePeriod,
    /// Receipts to be written.
    pub stages: Vec<StageUpdate>,
    /// Undelivered messages per recipient key.
    pub waiting: FastMap<PublicKey, Counts>,
    /// Those of them that are a session's copies of messages to its member, per session key.
    pub copies: FastMap<PublicKey, Counts>,
    /// Session keys per member that had copies; those without any are forgotten when they are looked at.
    pub copy_keys: FastMap<MemberId, FastSet<PublicKey>>,
    /// Retries and receipts of the newest messages.
    pub recent: RecentMessages,
    /// What the batch that is being written was about.
    pub ticket: Option<Ticket>,
    /// Peers to look at after the next commit.
    pub after_commit: HashMap<PeerHandle, AfterCommit>,
    /// Looks into storage for acknowledgements, by recipient key.
    pub lookups: HashMap<PublicKey, u32>,
    /// Peers whose backlog reaches beyond what is committed.
    pub behind: HashSet<PeerHandle>,
    /// What the audit log will be told.
    pub sent: Sent,
    /// Rate of each member.
    pub member_rates: FastMap<MemberId, Bucket>,
    /// Rate of each pair.
    pub pair_rates: FastMap<(MemberId, PublicKey), Bucket>,
    /// Pairs that the last sweep left.
    pub pairs_left: usize,
    /// Messages per trace: count and monotonic start of the window.
    pub traces: HashMap<String, (u32, i64)>,
    /// Traces that the last sweep left.
    pub traces_left: usize,
    /// The outcome of a transaction is unknown: storage may hold messages that their senders believe refused.
    pub doubtful: bool,
}

impl MessagingMemory {
    /// What storage knows of a mesh.
    pub fn new(
        max_seq: i64,
        waiting: FastMap<PublicKey, Counts>,
        copies: Vec<(MemberId, PublicKey, Counts)>,
        recent: Vec<(MessageId, DedupEntry)>,
    ) -> Self {
        let mut memory = Self { next_seq: max_seq + 1, committed: max_seq, waiting, ..Self::default() };
        memory.recount_copies(copies);
        for (id, known) in recent {
            memory.recent.recall(id, known);
        }
        memory
    }

    /// What storage knows of copies that wait.
    pub fn recount_copies(&mut self, copies: Vec<(MemberId, PublicKey, Counts)>) {
        for (member, key, counts) in copies {
            self.copy_keys.entry(member).or_default().insert(key);
            self.copies.insert(key, counts);
        }
    }

    /// A record is gone, and its handle with it.
    pub fn forget(&mut self, peer: PeerHandle) {
        self.behind.remove(&peer);
        self.after_commit.remove(&peer);
    }

    /// One more message waits for a recipient.
    pub fn count_waiting(&mut self, recipient: &Recipient, priority: Priority) {
        self.waiting.entry(recipient.key).or_default()[priority as usize] += 1;
        if recipient.copy {
            self.copies.entry(recipient.key).or_default()[priority as usize] += 1;
            let keys = self.copy_keys.entry(recipient.member.clone()).or_default();
            keys.insert(recipient.key);
        }
    }

    /// One message less waits for a recipient.
    pub fn count_delivered(&mut self, key: &PublicKey, copy: bool, priority: Priority) {
        count_down(&mut self.waiting, key, priority);
        if copy {
            count_down(&mut self.copies, key, priority);
        }
        if !self.waiting.contains_key(key) {
            self.copies.remove(key);
        }
    }

    /// A message waits for its row.
    pub fn enqueue(&mut self, seq: i64, bytes: usize, rows: usize, urgent: bool) {
        self.urgent |= urgent;
        self.ack_grace.admit(1);
        self.pending.push_back(seq);
        self.pending_live += 1;
        self.pending_bytes += bytes;
        self.pending_rows += rows;
    }

    /// A pending message was handed over, or needs no row any more.
    pub fn dequeue(&mut self, bytes: usize, rows: usize) {
        self.pending_live = self.pending_live.saturating_sub(1);
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        self.pending_rows = self.pending_rows.saturating_sub(rows);
        // While a transaction takes long, thousands may come and go: do not remember them all.
        if self.pending.len() > 1_024 + 4 * self.pending_live {
            let open = &self.open;
            self.pending.retain(|seq| open.contains_key(seq));
        }
    }

    /// The journal cannot keep up.
    pub fn is_full(&self) -> bool {
        self.pending_live >= MAX_PENDING || self.pending_bytes >= MAX_PENDING_BYTES
    }
}

fn count_down(counts: &mut FastMap<PublicKey, Counts>, key: &PublicKey, priority: Priority) {
    let Some(waiting) = counts.get_mut(key) else { return };
    let count = &mut waiting[priority as usize];
    *count = count.saturating_sub(1);
    if waiting.iter().all(|count| *count == 0) {
        counts.remove(key);
    }
}
