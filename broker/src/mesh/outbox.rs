//! What is on its way to one peer: the window of unacknowledged pushes and where the backlog in storage begins.

use std::sync::Arc;

use claudemesh_protocol::features::messaging::Priority;
use claudemesh_protocol::features::presence::PeerStatus;
use claudemesh_protocol::id::MessageId;
use claudemesh_protocol::limits;

use crate::hash::FastMap;

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
}

/// Where one priority class stands. Everything up to `pushed` was pushed on this socket; `tail` is the newest message
/// that is waiting in storage. There is a backlog while `tail > pushed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Highest seq pushed.
    pub pushed: i64,
    /// Highest seq left to storage.
    pub tail: i64,
}

impl Lane {
    /// Something waits in storage.
    pub fn backlog(self) -> bool {
        self.tail > self.pushed
    }
}

/// The window and the lanes.
#[derive(Debug, Default)]
pub struct Outbox {
    in_flight: FastMap<MessageId, InFlight>,
    bytes: usize,
    lanes: [Lane; 3],
    /// A read of the backlog is under way.
    pub reading: bool,
    /// Bumped by every attach: an answer of an older read is void.
    pub epoch: u64,
}

/// Index of a priority in arrays.
pub fn lane_of(priority: Priority) -> usize {
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
    pub fn has_room(&self, bytes: usize) -> bool {
        self.in_flight.is_empty()
            || (self.in_flight.len() < limits::MAX_IN_FLIGHT && self.bytes + bytes <= limits::MAX_IN_FLIGHT_BYTES)
    }

    /// Enough of the window is free that reading storage again pays.
    pub fn wants_refill(&self) -> bool {
        self.in_flight.len() <= limits::MAX_IN_FLIGHT / 2 && self.bytes <= limits::MAX_IN_FLIGHT_BYTES / 2
    }

    /// Free places.
    pub fn free(&self) -> usize {
        limits::MAX_IN_FLIGHT.saturating_sub(self.in_flight.len())
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
    pub fn lane(&self, priority: Priority) -> Lane {
        self.lanes[lane_of(priority)]
    }

    /// Notes a push.
    pub fn pushed(&mut self, id: MessageId, entry: InFlight) {
        let lane = &mut self.lanes[lane_of(entry.priority)];
        lane.pushed = lane.pushed.max(entry.seq);
        self.bytes += entry.bytes;
        if let Some(old) = self.in_flight.insert(id, entry) {
            self.bytes -= old.bytes;
        }
    }

    /// Notes a message left to storage.
    pub fn left_to_storage(&mut self, priority: Priority, seq: i64) {
        let lane = &mut self.lanes[lane_of(priority)];
        lane.tail = lane.tail.max(seq);
    }

    /// Everything in storage up to `seq` has been looked at.
    pub fn read_up_to(&mut self, priority: Priority, seq: i64) {
        let lane = &mut self.lanes[lane_of(priority)];
        lane.pushed = lane.pushed.max(seq);
    }

    /// Takes an acknowledged push out of the window.
    pub fn acknowledge(&mut self, id: &str) -> Option<InFlight> {
        let entry = self.in_flight.remove(id)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// Id of the push with this idempotency key. Walks the window, which is small; only older clients need it.
    pub fn id_of_client_message(&self, client_message_id: &str) -> Option<MessageId> {
        let fits = |entry: &InFlight| entry.client_message_id.as_deref() == Some(client_message_id);
        self.in_flight.iter().find(|(_, entry)| fits(entry)).map(|(id, _)| id.clone())
    }

    /// The socket is gone: what was not acknowledged is backlog again.
    pub fn rewind(&mut self) {
        for (_, entry) in self.in_flight.drain() {
            let lane = &mut self.lanes[lane_of(entry.priority)];
            lane.tail = lane.tail.max(lane.pushed);
            lane.pushed = lane.pushed.min(entry.seq - 1);
        }
        self.bytes = 0;
        self.reading = false;
        self.epoch += 1;
    }

    /// An attach: everything undelivered in storage up to `tail` has to be looked at.
    pub fn start_from_storage(&mut self, priority: Priority, tail: i64) {
        self.lanes[lane_of(priority)] = Lane { pushed: 0, tail };
    }

    /// Some class has a backlog.
    pub fn behind(&self) -> bool {
        self.lanes.iter().any(|lane| lane.backlog())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: i64, priority: Priority, bytes: usize) -> InFlight {
        InFlight { seq, priority, bytes, slot: None, client_message_id: None }
    }

    #[test]
    fn window_closes_by_count_and_by_bytes() {
        let mut outbox = Outbox::default();
        for seq in 1..=limits::MAX_IN_FLIGHT as i64 {
            assert!(outbox.has_room(10));
            outbox.pushed(seq.to_string().into(), entry(seq, Priority::Next, 10));
        }
        assert!(!outbox.has_room(10));
        assert!(!outbox.wants_refill());
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(10 << 20), "an oversized message must not block for ever");
        outbox.pushed("a".into(), entry(1, Priority::Now, 900_000));
        assert!(!outbox.has_room(200_000));
        outbox.acknowledge("a").unwrap();
        assert!(outbox.has_room(200_000));
    }

    #[test]
    fn rewind_makes_unacknowledged_pushes_backlog_again() {
        let mut outbox = Outbox::default();
        outbox.pushed("a".into(), entry(3, Priority::Next, 1));
        outbox.pushed("b".into(), entry(5, Priority::Next, 1));
        outbox.acknowledge("a").unwrap();
        outbox.rewind();
        assert_eq!(outbox.lane(Priority::Next), Lane { pushed: 4, tail: 5 });
        assert!(!outbox.lane(Priority::Now).backlog());
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
