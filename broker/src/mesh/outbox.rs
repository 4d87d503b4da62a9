//! What is on its way to one peer: the window of unacknowledged pushes and where the backlog in storage begins.

use std::sync::Arc;

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::features::presence::PeerStatus;
use claudemesh_protocol::id::{MessageId, PublicKey};
use claudemesh_protocol::limits;
use smallvec::SmallVec;

use crate::hash::{FastMap, FastSet};

/// A delivery that ends with the acknowledgement of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Recipient key of the delivery: of the session, of its member, or of a session that left it behind.
    pub key: PublicKey,
    /// Whether it is a session's copy of a message to its member.
    pub copy: bool,
}

/// Nearly always one.
pub type AllOwed = SmallVec<[Owed; 1]>;

/// A pushed message that was not acknowledged.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Order in the mesh.
    pub seq: i64,
    /// Urgency.
    pub priority: Priority,
    /// Bytes of the frame.
    pub bytes: usize,
    /// Place among the message's recipients while it is in memory; `None` when it was read back from storage.
    pub slot: Option<usize>,
    /// The sender's idempotency key: older clients acknowledge by it.
    pub client_message_id: Option<Arc<str>>,
    /// What its acknowledgement ends.
    pub owed: AllOwed,
    /// Mark of the frame in its socket, see [`crate::session::queue::PeerSender::push_marked`].
    pub mark: u64,
    /// Monotonic ms when the frame was first seen to have left; kept for clients that never acknowledge.
    pub left_mono_ms: Option<i64>,
}

/// Where one priority class stands. Everything up to `pushed` was pushed on this socket; `tail` is the newest message
/// that is waiting in storage. There is a backlog while `tail > pushed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriorityCursor {
    /// Highest seq pushed.
    pub pushed: i64,
    /// Highest seq left to storage.
    pub tail: i64,
}

impl PriorityCursor {
    /// Something waits in storage.
    pub fn backlog(self) -> bool {
        self.tail > self.pushed
    }
}

/// The window and the cursors.
#[derive(Debug, Default)]
pub struct Outbox {
    in_flight: FastMap<MessageId, InFlight>,
    bytes: usize,
    cursors: [PriorityCursor; 3],
    /// A read of the backlog is under way.
    pub reading: bool,
    /// Bumped by every attach and every look from the beginning: an answer of an older read is void.
    pub epoch: u64,
    /// What was in flight when the last look from the beginning started: storage may still show it as waiting.
    looked: FastSet<i64>,
}

fn ms(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Index of a priority in arrays.
pub fn index_of(priority: Priority) -> usize {
    priority as usize
}

/// Whether a status lets a priority pass. `low` passes on its own only to peers that cannot pull.
pub fn passes(status: PeerStatus, priority: Priority, pulls: bool) -> bool {
    match priority {
        Priority::Now => true,
        Priority::Next => status == PeerStatus::Idle,
        Priority::Low => status == PeerStatus::Idle && !pulls,
    }
}

impl Outbox {
    /// Room for one more push of this size. One message always fits an empty window, whatever its size.
    ///
    /// Of a client that does not acknowledge only the number counts: what has left its queue holds no memory but its id.
    pub fn has_room(&self, bytes: usize, acks: bool) -> bool {
        if !acks {
            return self.in_flight.len() < limits::MAX_UNCONFIRMED;
        }
        self.in_flight.is_empty()
            || (self.in_flight.len() < limits::MAX_IN_FLIGHT && self.bytes + bytes <= limits::MAX_IN_FLIGHT_BYTES)
    }

    /// Enough of the window is free that reading storage again pays.
    pub fn wants_refill(&self, acks: bool) -> bool {
        if !acks {
            return self.in_flight.len() <= limits::MAX_UNCONFIRMED / 2;
        }
        self.in_flight.len() <= limits::MAX_IN_FLIGHT / 2 && self.bytes <= limits::MAX_IN_FLIGHT_BYTES / 2
    }

    /// Free places, at most as many as a client that acknowledges has.
    pub fn free(&self, acks: bool) -> usize {
        let places = if acks { limits::MAX_IN_FLIGHT } else { limits::MAX_UNCONFIRMED };
        places.saturating_sub(self.in_flight.len()).min(limits::MAX_IN_FLIGHT)
    }

    /// Pushes that wait for an acknowledgement.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Nothing waits for an acknowledgement.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether this message was pushed and is not acknowledged.
    pub fn has(&self, id: &str) -> bool {
        self.in_flight.contains_key(id)
    }

    /// Where a class stands.
    pub fn cursor(&self, priority: Priority) -> PriorityCursor {
        self.cursors[index_of(priority)]
    }

    /// Notes a push.
    pub fn pushed(&mut self, id: MessageId, entry: InFlight) {
        let cursor = &mut self.cursors[index_of(entry.priority)];
        cursor.pushed = cursor.pushed.max(entry.seq);
        self.bytes += entry.bytes;
        if let Some(old) = self.in_flight.insert(id, entry) {
            self.bytes -= old.bytes;
        }
    }

    /// Notes a message left to storage.
    pub fn left_to_storage(&mut self, priority: Priority, seq: i64) {
        let cursor = &mut self.cursors[index_of(priority)];
        cursor.tail = cursor.tail.max(seq);
    }

    /// Everything in storage up to `seq` has been looked at.
    pub fn read_up_to(&mut self, priority: Priority, seq: i64) {
        let cursor = &mut self.cursors[index_of(priority)];
        cursor.pushed = cursor.pushed.max(seq);
    }

    /// Takes an acknowledged push out of the window.
    pub fn acknowledge(&mut self, id: &str) -> Option<InFlight> {
        let entry = self.in_flight.remove(id)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// Deliveries of these recipients that end with the acknowledgement of a push.
    pub fn owing(&self, keys: &[PublicKey]) -> usize {
        self.in_flight.values().flat_map(|entry| &entry.owed).filter(|owed| keys.contains(&owed.key)).count()
    }

    /// Another connection has ended one delivery of a push.
    pub fn ended(&mut self, id: &str, key: &PublicKey) {
        if let Some(entry) = self.in_flight.get_mut(id) {
            entry.owed.retain(|owed| owed.key != *key);
            if entry.owed.is_empty() {
                self.acknowledge(id);
            }
        }
    }

    /// The session of this key is back and gets its own copies itself.
    pub fn give_back(&mut self, key: &PublicKey) {
        for entry in self.in_flight.values_mut() {
            entry.owed.retain(|owed| owed.key != *key);
        }
    }

    /// Id of the push with this idempotency key. Walks the window, which is small; only older clients need it.
    pub fn id_of_client_message(&self, client_message_id: &str) -> Option<MessageId> {
        let fits = |entry: &InFlight| entry.client_message_id.as_deref() == Some(client_message_id);
        self.in_flight.iter().find(|(_, entry)| fits(entry)).map(|(id, _)| id.clone())
    }

    /// The socket is gone: what was not acknowledged is backlog again.
    pub fn rewind(&mut self) {
        for (_, entry) in self.in_flight.drain() {
            let cursor = &mut self.cursors[index_of(entry.priority)];
            cursor.tail = cursor.tail.max(cursor.pushed);
            cursor.pushed = cursor.pushed.min(entry.seq - 1);
        }
        self.bytes = 0;
        self.reading = false;
        self.looked = FastSet::default();
        self.epoch += 1;
    }

    /// Everything undelivered of these classes in storage up to `tail` has to be looked at. Nothing is read before `reading`
    /// is taken back: what was acknowledged has to be on disk first.
    pub fn look_again(&mut self, classes: [bool; Priority::ALL.len()], tail: i64) {
        for priority in Priority::ALL.into_iter().filter(|priority| classes[index_of(*priority)]) {
            self.cursors[index_of(priority)] = PriorityCursor { pushed: 0, tail };
        }
        self.looked = self.in_flight.values().map(|entry| entry.seq).collect();
        self.reading = true;
        self.epoch += 1;
    }

    /// Whether a message that storage shows as waiting was pushed on this socket before.
    pub fn knows(&self, id: &str, seq: i64) -> bool {
        self.has(id) || self.looked.contains(&seq)
    }

    /// For a client that never acknowledges: takes out what left before [`limits::STAYED_OPEN`] on a socket that is still open
    /// and was heard of late enough to have been there when it came.
    pub fn take_stayed(&mut self, written_bytes: u64, mono_ms: i64, heard_mono_ms: i64) -> Vec<(MessageId, InFlight)> {
        let stayed = ms(limits::STAYED_OPEN);
        // A peer that is there answers a ping in this time; one that was not heard since may have gone without a word.
        let alive = stayed - ms(limits::PING_INTERVAL);
        let mut due = Vec::new();
        for (id, entry) in &mut self.in_flight {
            if entry.mark <= written_bytes {
                let left = *entry.left_mono_ms.get_or_insert(mono_ms);
                if mono_ms - left >= stayed && heard_mono_ms - left >= alive {
                    due.push(id.clone());
                }
            }
        }
        due.into_iter().filter_map(|id| self.acknowledge(id.as_str()).map(|entry| (id, entry))).collect()
    }

    /// Some class has a backlog.
    pub fn behind(&self) -> bool {
        self.cursors.iter().any(|cursor| cursor.backlog())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: i64, priority: Priority, bytes: usize) -> InFlight {
        InFlight {
            seq,
            priority,
            bytes,
            slot: None,
            client_message_id: None,
            owed: AllOwed::new(),
            mark: seq as u64,
            left_mono_ms: None,
        }
    }

    #[test]
    fn window_closes_by_count_and_by_bytes() {
        let mut outbox = Outbox::default();
        for seq in 1..=limits::MAX_IN_FLIGHT as i64 {
            assert!(outbox.has_room(10, true));
            outbox.pushed(seq.to_string().into(), entry(seq, Priority::Next, 10));
        }
        assert!(!outbox.has_room(10, true));
        assert!(!outbox.wants_refill(true));
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(10 << 20, true), "an oversized message must not block for ever");
        outbox.pushed("a".into(), entry(1, Priority::Now, 900_000));
        assert!(!outbox.has_room(200_000, true));
        outbox.acknowledge("a").unwrap();
        assert!(outbox.has_room(200_000, true));
    }

    #[test]
    fn rewind_makes_unacknowledged_pushes_backlog_again() {
        let mut outbox = Outbox::default();
        outbox.pushed("a".into(), entry(3, Priority::Next, 1));
        outbox.pushed("b".into(), entry(5, Priority::Next, 1));
        outbox.acknowledge("a").unwrap();
        outbox.rewind();
        assert_eq!(outbox.cursor(Priority::Next), PriorityCursor { pushed: 4, tail: 5 });
        assert!(!outbox.cursor(Priority::Now).backlog());
    }

    #[test]
    fn without_acknowledgements_a_push_counts_when_its_socket_stayed_open_and_was_heard_of() {
        let mut outbox = Outbox::default();
        outbox.pushed("a".into(), entry(1, Priority::Next, 1));
        outbox.pushed("b".into(), entry(2, Priority::Next, 1));
        let taken = |outbox: &mut Outbox, left, mono, heard| {
            outbox.take_stayed(left, mono, heard).into_iter().map(|(_, entry)| entry.seq).collect::<Vec<_>>()
        };
        assert_eq!(taken(&mut outbox, 0, 0, 0), [0; 0], "nothing has left");
        assert_eq!(taken(&mut outbox, 1, 1_000, 1_000), [0; 0], "the first has just left");
        assert_eq!(taken(&mut outbox, 1, 30_999, 30_999), [0; 0]);
        assert_eq!(taken(&mut outbox, 1, 60_000, 1_001), [0; 0], "no one was heard of since");
        assert_eq!(taken(&mut outbox, 1, 60_000, 30_000), [1]);
        assert_eq!(taken(&mut outbox, 2, 60_000, 60_000), [0; 0]);
        assert_eq!(taken(&mut outbox, 2, 90_000, 90_000), [2]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_look_from_the_beginning_knows_what_was_pushed_and_acknowledged_meanwhile() {
        let mut outbox = Outbox::default();
        outbox.pushed("a".into(), entry(3, Priority::Next, 1));
        outbox.look_again([true; 3], 9);
        outbox.acknowledge("a").unwrap();
        assert_eq!(outbox.cursor(Priority::Next), PriorityCursor { pushed: 0, tail: 9 });
        assert!(outbox.knows("a", 3) && !outbox.knows("b", 2));
        outbox.rewind();
        assert!(!outbox.knows("a", 3), "a new socket got nothing yet");
    }

    #[test]
    fn gating_follows_the_status() {
        for status in [PeerStatus::Idle, PeerStatus::Working, PeerStatus::Dnd] {
            assert!(passes(status, Priority::Now, true));
            assert_eq!(passes(status, Priority::Next, true), status == PeerStatus::Idle);
            assert!(!passes(status, Priority::Low, true));
            assert_eq!(passes(status, Priority::Low, false), status == PeerStatus::Idle);
        }
    }
}
