//! The only place that reads the operating system's clock.
//!
//! Two times: wall time ([`Clock::now_ms`], stored and sent) and monotonic time ([`Clock::mono_ms`], for leases, limits and
//! timers, so that a wrong or stepped wall clock neither expires everything nor freezes a timer).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// A clock shared by every part of one broker.
pub type SharedClock = Arc<dyn Clock>;

/// Wall time, monotonic time, and sleeping on the latter.
pub trait Clock: Send + Sync + 'static {
    /// Unix milliseconds.
    fn now_ms(&self) -> i64;

    /// Milliseconds since an arbitrary start; never goes back.
    fn mono_ms(&self) -> i64;

    /// Resolves once [`Clock::mono_ms`] has reached `at_ms`. Safe to drop.
    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The real clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A shared real clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the OS clock")]
    pub fn shared() -> SharedClock {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the OS clock")]
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn mono_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let wait = u64::try_from(at_ms - self.mono_ms()).unwrap_or(0);
        Box::pin(tokio::time::sleep(Duration::from_millis(wait)))
    }
}

/// A clock that moves only when told to: for tests of leases, expiries and limits.
#[derive(Debug)]
pub struct ManualClock {
    base_ms: i64,
    elapsed: watch::Sender<i64>,
}

impl ManualClock {
    /// Starts at a wall time; monotonic time starts at 0.
    pub fn at(wall_ms: i64) -> Arc<Self> {
        Arc::new(Self { base_ms: wall_ms, elapsed: watch::Sender::new(0) })
    }

    /// Moves both times forward and wakes what is due.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.elapsed.send_modify(|elapsed| *elapsed += by);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.base_ms + *self.elapsed.borrow()
    }

    fn mono_ms(&self) -> i64 {
        *self.elapsed.borrow()
    }

    fn sleep_until(&self, at_ms: i64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut elapsed = self.elapsed.subscribe();
        Box::pin(async move {
            // The sender lives as long as the broker; when it is gone nobody waits any more.
            let _ = elapsed.wait_for(|now| *now >= at_ms).await;
        })
    }
}
