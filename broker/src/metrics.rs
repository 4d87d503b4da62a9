//! Prometheus metrics. No ids in labels: their number must not grow with users.

use std::sync::LazyLock;

use claudemesh_protocol::features::messaging::Priority;
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::features::Features;

/// Every metric of the broker, registered once.
pub struct Metrics {
    registry: Registry,
    /// Accepted hellos.
    pub connections: IntCounter,
    /// Refused hellos by code.
    pub connections_rejected: IntCounterVec,
    /// Open connections that said hello.
    pub connections_active: IntGauge,
    /// Sockets that have not said hello.
    pub connections_pending: IntGauge,
    /// Frames by feature and result (`ok` or the error code).
    pub frames: Frames,
    /// Accepted messages by priority.
    pub messages_routed: ByPriority,
    /// Refused messages by code.
    pub messages_rejected: IntCounterVec,
    /// Deliveries pushed to sockets.
    pub deliveries_pushed: IntCounter,
    /// Deliveries dropped from a batch because they were acknowledged before it was written.
    pub deliveries_unwritten: IntCounter,
    /// Messages not delivered because of the recipient's grants.
    pub dropped_by_grant: IntCounterVec,
    /// Ephemeral events dropped because a queue was full, or the mesh sent too many in that second.
    pub events_dropped: IntCounter,
    /// Answers that did not fit: their sockets were closed.
    pub answers_dropped: IntCounter,
    /// Journal transactions.
    pub journal_commits: IntCounter,
    /// Rows per journal transaction.
    pub journal_rows: Histogram,
    /// Seconds of one journal transaction.
    pub journal_seconds: Histogram,
    /// Seconds one frame spends in its handler.
    pub handler_seconds: Histogram,
    /// Hook calls.
    pub hook_requests: IntCounter,
    /// Hook calls refused by the rate limit.
    pub hook_limited: IntCounter,
    /// `working` states that expired.
    pub ttl_expired: IntCounter,
    /// 1 when the last storage operation worked.
    pub db_healthy: IntGauge,
    /// Meshes in memory.
    pub meshes_active: IntGauge,
}

/// Counters of frames. Those of handled ones are at hand, because finding a label costs more than counting.
pub struct Frames {
    all: IntCounterVec,
    handled: Vec<(&'static str, IntCounter)>,
}

impl Frames {
    fn new(all: IntCounterVec) -> Self {
        let handled = Features::NAMES.iter().map(|name| (*name, all.with_label_values(&[*name, OK]))).collect();
        Self { all, handled }
    }

    /// One more frame that a feature handled without a refusal.
    pub fn handled(&self, feature: &'static str) {
        match self.handled.iter().find(|(name, _)| *name == feature) {
            Some((_, counter)) => counter.inc(),
            None => self.all.with_label_values(&[feature, OK]).inc(),
        }
    }

    /// One more frame that was not handled; `result` is an error code or a word of ours.
    pub fn refused(&self, feature: &'static str, result: &str) {
        self.all.with_label_values(&[feature, result]).inc();
    }
}

const OK: &str = "ok";

/// One counter a priority.
pub struct ByPriority([IntCounter; Priority::ALL.len()]);

impl ByPriority {
    fn new(all: &IntCounterVec) -> Self {
        Self(Priority::ALL.map(|priority| all.with_label_values(&[priority.as_str()])))
    }

    /// The counter of a priority.
    pub fn of(&self, priority: Priority) -> &IntCounter {
        &self.0[priority as usize]
    }
}

/// The process's metrics. One registry per process, as scrapers expect.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    #[expect(clippy::expect_used, reason = "names are constants, and every test makes them")]
    fn new() -> Self {
        let registry = Registry::new_custom(Some("claudemesh".into()), None).expect("the prefix is a valid name");
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help).expect("a valid metric name");
            registry.register(Box::new(metric.clone())).expect("names are unique");
            metric
        };
        let counters = |name: &str, help: &str, label: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), label).expect("a valid metric name");
            registry.register(Box::new(metric.clone())).expect("names are unique");
            metric
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help).expect("a valid metric name");
            registry.register(Box::new(metric.clone())).expect("names are unique");
            metric
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let metric = Histogram::with_opts(options).expect("a valid metric name");
            registry.register(Box::new(metric.clone())).expect("names are unique");
            metric
        };
        let seconds = [0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
        Self {
            connections: counter("connections_total", "Accepted hellos"),
            connections_rejected: counters("connections_rejected_total", "Refused hellos", &["code"]),
            connections_active: gauge("connections_active", "Open connections that said hello"),
            connections_pending: gauge("connections_pending", "Sockets that have not said hello"),
            frames: Frames::new(counters("frames_total", "Client frames", &["feature", "result"])),
            messages_routed: ByPriority::new(&counters("messages_routed_total", "Accepted messages", &["priority"])),
            messages_rejected: counters("messages_rejected_total", "Refused messages", &["code"]),
            deliveries_pushed: counter("deliveries_pushed_total", "Deliveries pushed to sockets"),
            deliveries_unwritten: counter(
                "deliveries_unwritten_total",
                "Deliveries acknowledged before their batch was written",
            ),
            dropped_by_grant: counters("messages_dropped_by_grant_total", "Deliveries refused by grants", &["grant"]),
            events_dropped: counter("events_dropped_total", "Ephemeral events dropped on a full queue"),
            answers_dropped: counter("answers_dropped_total", "Answers whose peer did not read and was closed"),
            journal_commits: counter("journal_commits_total", "Journal transactions"),
            journal_rows: histogram(
                "journal_rows",
                "Rows per journal transaction",
                &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0],
            ),
            journal_seconds: histogram("journal_seconds", "Seconds per journal transaction", &seconds),
            handler_seconds: histogram("handler_seconds", "Seconds one frame spends in its handler", &seconds),
            hook_requests: counter("hook_requests_total", "Hook calls"),
            hook_limited: counter("hook_requests_rate_limited_total", "Hook calls over the rate limit"),
            ttl_expired: counter("working_expired_total", "Working states that expired"),
            db_healthy: gauge("db_healthy", "1 when the last storage operation worked"),
            meshes_active: gauge("meshes_active", "Meshes in memory"),
            registry,
        }
    }

    /// The text exposition format.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        if TextEncoder::new().encode(&self.registry.gather(), &mut out).is_err() {
            return String::new();
        }
        String::from_utf8(out).unwrap_or_default()
    }
}
