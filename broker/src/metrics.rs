//! Prometheus metrics: those of the broker itself, and what a feature makes its own with (`features/<feature>/metrics.rs`). No ids in
//! labels: their number must not grow with users.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::features::Features;

/// The process's registry, as scrapers expect.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the prefix is a constant, and every test makes it")]
    Registry::new_custom(Some("claudemesh".into()), None).expect("the prefix is a valid name")
});

/// Registers a metric.
///
/// # Panics
/// Its name is not valid, or there is one of that name already: names are constants, and a test makes them all.
#[expect(clippy::expect_used, reason = "names are constants, and every test makes them")]
fn registered<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("a valid metric name");
    REGISTRY.register(Box::new(metric.clone())).expect("names are unique");
    metric
}

/// Makes a counter; its name gets the prefix `claudemesh_`.
pub fn counter(name: &str, help: &str) -> IntCounter {
    registered(IntCounter::new(name, help))
}

/// Makes counters with labels.
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(name: &str, help: &str) -> IntGauge {
    registered(IntGauge::new(name, help))
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

/// The metrics of the broker itself.
pub struct Metrics {
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

/// The metrics of the broker itself.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let seconds = [0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
        Self {
            connections: counter("connections_total", "Accepted hellos"),
            connections_rejected: counters("connections_rejected_total", "Refused hellos", &["code"]),
            connections_active: gauge("connections_active", "Open connections that said hello"),
            connections_pending: gauge("connections_pending", "Sockets that have not said hello"),
            frames: Frames::new(counters("frames_total", "Client frames", &["feature", "result"])),
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
            db_healthy: gauge("db_healthy", "1 when the last storage operation worked"),
            meshes_active: gauge("meshes_active", "Meshes in memory"),
        }
    }
}

/// The text exposition format.
pub fn render() -> String {
    Features::register_metrics();
    let mut out = Vec::new();
    if TextEncoder::new().encode(&REGISTRY.gather(), &mut out).is_err() {
        return String::new();
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_that_the_operators_page_names_is_shown_before_it_has_counted_anything() {
        // A family whose labels appear with what is counted has nothing to show yet.
        METRICS.connections_rejected.with_label_values(&["capacity"]);
        let (page, shown) = (include_str!("../../docs/operations.md"), render());
        let rows = page.lines().skip_while(|line| !line.starts_with("| Metric |")).skip(2);
        let named = rows.take_while(|line| line.starts_with('|')).filter_map(|line| line.split(['`', '{']).nth(1));
        let named: Vec<_> = named.filter(|name| *name != "messages_rejected_total").collect();
        assert!(named.len() > 5, "{named:?}");
        for name in named {
            assert!(shown.contains(&format!("# TYPE claudemesh_{name} ")), "{name}: {shown}");
        }
        for name in ["deliveries_pushed_total", "hook_requests_total", "messages_routed_total{priority=\"now\"}"] {
            assert!(shown.contains(&format!("claudemesh_{name} ")), "{name}");
        }
    }
}
