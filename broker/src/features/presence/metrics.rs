//! What the feature counts.

use std::sync::LazyLock;

use prometheus::IntCounter;

use crate::metrics::counter;

/// Counters of hook calls and statuses.
pub(super) struct Metrics {
    /// Hook calls.
    pub hook_requests: IntCounter,
    /// Hook calls refused by the rate limit.
    pub hook_limited: IntCounter,
    /// `working` states that expired.
    pub working_expired: IntCounter,
}

/// The counters, registered at the first use.
pub(super) static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    hook_requests: counter("hook_requests_total", "Hook calls"),
    hook_limited: counter("hook_requests_rate_limited_total", "Hook calls over the rate limit"),
    working_expired: counter("working_expired_total", "Working states that expired"),
});
