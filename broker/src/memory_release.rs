//! Notices when the broker has become quiet after a lot of work: the moment to give freed memory back.
//!
//! An allocator keeps what was freed for a while and looks at it again only when it is called; after a storm of hellos that would
//! be never.

use std::time::Duration;

use crate::metrics::METRICS;

/// Frames and hellos in a second that are a lot of work.
const BUSY: u64 = 500;

/// Runs on one thread of the broker, for ever.
pub(crate) async fn when_idle(on_quiet: fn()) {
    let work = || METRICS.handler_seconds.get_sample_count() + METRICS.connections.get();
    let (mut last, mut busy) = (work(), false);
    loop {
        // Real time, whatever the broker's clock says: this is about the machine.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = work();
        let quiet = now - last < BUSY;
        last = now;
        if quiet && busy {
            on_quiet();
        }
        busy = !quiet;
    }
}
