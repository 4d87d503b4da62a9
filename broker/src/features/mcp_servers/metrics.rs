//! What the feature counts.

use std::sync::LazyLock;

use prometheus::IntCounterVec;

use crate::metrics::counters;

/// Counters of calls.
pub(super) struct Metrics {
    /// Ended calls, by `ok` or the code of the error.
    pub calls: IntCounterVec,
}

/// The counters, registered at the first use.
pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    calls: counters("mcp_calls_total", "Ended calls of tools of MCP servers", &["result"]),
});
