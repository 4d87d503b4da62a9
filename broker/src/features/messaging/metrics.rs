//! What the feature counts.

use std::sync::LazyLock;

use claudemesh_protocol::features::messaging::Priority;
use prometheus::{IntCounter, IntCounterVec};

use crate::metrics::{counter, counters};

/// Counters of messages and deliveries.
pub(super) struct Metrics {
    /// Accepted messages by priority.
    pub routed: ByPriority,
    /// Refused messages by code.
    pub rejected: IntCounterVec,
    /// Deliveries pushed to sockets.
    pub pushed: IntCounter,
    /// Deliveries left out of a batch because they were acknowledged before it was written.
    pub unwritten: IntCounter,
}

/// The counters, registered at the first use.
pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    routed: ByPriority::new(&counters("messages_routed_total", "Accepted messages", &["priority"])),
    rejected: counters("messages_rejected_total", "Refused messages", &["code"]),
    pushed: counter("deliveries_pushed_total", "Deliveries pushed to sockets"),
    unwritten: counter("deliveries_unwritten_total", "Deliveries acknowledged before their batch was written"),
});

/// One counter a priority.
pub(super) struct ByPriority([IntCounter; Priority::ALL.len()]);

impl ByPriority {
    fn new(all: &IntCounterVec) -> Self {
        Self(Priority::ALL.map(|priority| all.with_label_values(&[priority.as_str()])))
    }

    /// The counter of a priority.
    pub(super) fn of(&self, priority: Priority) -> &IntCounter {
        &self.0[priority as usize]
    }
}
